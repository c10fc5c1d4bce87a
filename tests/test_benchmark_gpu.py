"""The benchmarks of a GPU, on a CPU: what they print, what they count, and what they would run."""

import pytest
import torch
from torch import nn

from distill_run.benchmarks import gpu
from distill_run.benchmarks.peaks import flops_of, peak_flops
from helpers import message_of


def test_the_speed_of_a_pair_stands_beside_those_of_the_plain_and_the_bare_loops(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setattr(gpu, "peak_flops", lambda *_: 1e12)
    sizes = ["--images", "64", "--batch-size", "16", "--seconds", "0", "--workers", "0"]
    gpu.main([*sizes, "--pairs", "cnn_tiny:cnn_tiny", "--device", "cpu", "--compile", "off", "device.precision=fp32"])
    first, headings, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"cnn_tiny -> cnn_tiny, batch 16, cpu, fp32, compile=off, torch {torch.__version__}"
    assert headings.split() == ["images/s", "/", "plain", "/", "bare", "of", "peak"]
    rows = {line[:30].strip(): line[30:].replace(",", "").split() for line in lines}
    plain, both, live, bare, bank = rows.values()
    assert list(rows) == [
        "DataLoader, 0 workers, fp32", "bare loop of both", "teacher live", "bare loop", "logit bank"
    ]  # fmt: skip
    for ours, slow in ((live, both), (bank, bare)):
        assert float(ours[1]) == pytest.approx(float(ours[0]) / float(plain[0]), abs=0.06)
        assert float(ours[2]) == pytest.approx(float(ours[0]) / float(slow[0]), abs=0.01)
        assert ours[3].endswith("%")
    assert last == ""


def test_a_pair_is_two_networks() -> None:
    told = f"--pairs wants two networks for each pair\n  write them as in --pairs {gpu.PAIRS}"
    assert message_of(gpu.main, ["--pairs", "resnet56"]) == told


def test_the_flops_of_a_step_are_those_of_its_products() -> None:
    """The backward pass has a product for the weights and one for the inputs, but not for those of the first layer."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    convolution, linear = 2 * 27 * 8 * 16, 2 * 8 * 16 * 5
    images = torch.rand(2, 3, 4, 4)
    assert flops_of(network, images, learns=False) == 2 * (convolution + linear)
    assert flops_of(network, images, learns=True) == 2 * (2 * convolution + 3 * linear)


def test_a_peak_is_known_by_the_name_of_the_gpu_and_the_precision() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989.5e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "tf32") == peak_flops("NVIDIA A100 80GB PCIe", "tf32") == 156e12
    assert peak_flops("NVIDIA L4", "fp16") == 121e12
    for name, precision in (
        ("NVIDIA L40S", "bf16"),
        ("Tesla T4", "bf16"),
        ("NVIDIA H100 PCIe", "bf16"),
        ("cpu", "fp32"),
    ):
        assert peak_flops(name, precision) is None
