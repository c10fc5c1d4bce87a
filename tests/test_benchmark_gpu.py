"""The benchmarks of a GPU, on a CPU: what they print, what they count, and what they would run."""

from pathlib import Path

import pytest
import torch
from torch import nn

from distill_run.benchmarks import gpu, published
from distill_run.benchmarks.peaks import flops_of, peak_flops
from distill_run.files import RunFiles
from distill_run.report.run_report import RunReport
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


SHORT = "cifar100/resnet20_from_resnet56_soft"


def test_the_commands_of_the_published_rows_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--list", "--rows", SHORT, "--folder", str(tmp_path), "dataset.root=data", "device=cuda"]
    assert published.main([*words, "--seeds", "2"])
    assert capsys.readouterr().out.splitlines() == [
        f"distill-run experiment={SHORT} device.precision={precision} repeats=2 store_dir={tmp_path}/store "
        f"hydra.run.dir={tmp_path}/{SHORT}/{precision} dataset.root=data device=cuda"
        for precision in ("fp32", "bf16")
    ]
    RunFiles(tmp_path / SHORT / "fp32").last.parent.mkdir(parents=True)
    RunFiles(tmp_path / SHORT / "fp32").last.write_bytes(b"")
    published.main([*words, "--precisions", "fp32"])
    assert capsys.readouterr().out == f"distill-run resume={tmp_path}/{SHORT}/fp32\n"


def test_ours_stand_beside_the_published_figures(tiny_report: RunReport) -> None:
    """The figures of that row are those of the last epoch; one seed has no standard deviation."""
    last = [
        network.last.test.accuracy for network in (tiny_report.teacher, *tiny_report.baselines, tiny_report.student)
    ]
    lines = published.table([published.Row.of(SHORT)], {(SHORT, "fp32"): tiny_report})
    assert lines[2:] == [
        f"| {SHORT} | published | 72.34% | 69.06% | 70.66% |  |",
        f"| {SHORT} | fp32 | {' | '.join(f'{100 * accuracy:.2f}%' for accuracy in last)} | 1 |",
    ]


def test_a_row_without_published_figures_is_refused() -> None:
    for name in ("founding_cifar10", "cifar100/nothing"):
        told = f"--rows={name} is not an experiment with published figures"
        assert message_of(published.main, ["--list", "--rows", name]).startswith(told)
