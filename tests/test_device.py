"""Every `auto` becomes something, and says what and why; what is not there is refused."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import TINY
from distill_run.config.schema import DeviceSettings
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.engine.compilation import check_compiler, compiled
from distill_run.engine.device import Device, choose_device, storage_dtype
from distill_run.models.network import mean_work
from distill_run.pipeline import run
from helpers import message_of
from trainers import device_settings


def wanted(kind: str = "cpu", precision: str = "fp32", channels_last: bool = False) -> DeviceSettings:
    return device_settings(kind=kind, precision=precision, channels_last=channels_last)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    device = choose_device(wanted("auto", "auto", channels_last=True))
    assert device.settings == wanted("cpu", "fp32", channels_last=True)
    why = "device.precision: auto -> fp32 (the CPU has no AVX512-BF16)"
    assert device.notes == ("device: auto -> cpu (no GPU was found)", why)
    assert device.torch_device == torch.device("cpu")


@pytest.mark.usefixtures("no_gpu")
def test_a_cpu_with_bf16_computes_in_it_what_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    device = choose_device(wanted("auto", "auto"))
    assert device.settings == wanted("cpu", "auto")
    for work, precision in ((22.4, "fp32"), (299.9, "fp32"), (300.0, "bf16"), (475.0, "bf16")):
        chosen = device.for_work(work)
        assert chosen.settings == wanted("cpu", precision)
        assert chosen.notes == (
            f"device.precision: auto -> {precision} (about {work:.0f} multiply-adds for a value; on the CPUs that were "
            "measured, bf16 is faster from about 300 on)",
        )


def test_each_network_computes_in_its_own_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The teacher's logits, too, in the teacher's precision: as float16 in the bank."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    wide = ["teacher=mlp", "teacher.hidden=[600,600]", "device.precision=auto"]
    report = run(compose_config([*TINY, *wide, f"store_dir={tmp_path / 'store'}"]), tmp_path / "run")
    assert (report.teacher.precision, report.student.precision) == ("bf16", "fp32")
    (view,) = (tmp_path / "store" / "logits").glob("*/view_0.npy")
    assert np.load(view).dtype == np.float16


def test_the_work_of_a_layer_is_the_length_of_its_sums() -> None:
    """A 3x3 convolution of 4 channels sums 36 products for a value, a linear layer as many as it has inputs."""
    shape = ImageShape(4, (6, 6), 5)
    convolution = nn.Conv2d(4, 8, 3, padding=1)
    network = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert mean_work(nn.Sequential(convolution), shape) == 36
    assert mean_work(network, shape) == pytest.approx((288 * 36 + 5 * 288) / 293)


def test_the_best_device_is_mps_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device(wanted("auto", "auto"))
    assert device.settings == wanted("mps", "fp32")
    assert device.notes == (
        "device: auto -> mps (no CUDA device was found)",
        "device.precision: auto -> fp32 (the safe choice on mps)",
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_best_device_is_cuda_where_there_is_one() -> None:
    device = choose_device(wanted("auto", "fp32"))
    assert device.settings.kind == "cuda"
    assert device.notes == (f"device: auto -> cuda ({torch.cuda.get_device_name()})",)
    assert torch.backends.cudnn.deterministic


def test_what_is_named_is_taken_without_a_note_and_choosing_twice_changes_nothing() -> None:
    assert choose_device(wanted("cpu", "bf16")) == Device(wanted("cpu", "bf16"), ())
    once = choose_device(wanted("cpu", "auto"))
    assert choose_device(once.settings) == Device(once.settings, ())


@pytest.mark.usefixtures("no_gpu")
def test_a_device_that_is_not_there_and_half_precision_on_the_cpu_are_refused() -> None:
    for kind in ("cuda", "mps"):
        told = f"device={kind} is not there\n  write device=auto; torch finds cpu"
        assert message_of(choose_device, wanted(kind)) == told
    for kind in ("cpu", "auto"):
        told = "device.precision=fp16 is not for the CPU\n  write device.precision=bf16 or fp32"
        assert message_of(choose_device, wanted(kind, "fp16")) == told


class TorchDynamoException(RuntimeError):  # noqa: N818 - the name of torch's own
    """What torch.compile raises: its own class is in a private module."""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("InvalidCxxCompiler: No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1", "InvalidCxxCompiler: "
         "No working C++ compiler found"),
        ("backend='inductor' raised:\nRuntimeError: Cannot find a working triton installation.\n\nSet TORCH",
         "RuntimeError: Cannot find a working triton installation."),
        ("", "TorchDynamoException"),
    ],
)  # fmt: skip
def test_a_compiler_that_is_not_there_is_told_before_any_data_is_read(
    text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What compiled yesterday may be in torch's cache: then the first step of the training tells it."""

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise TorchDynamoException(text)

    monkeypatch.setattr(torch, "compile", lambda _: fails)
    check_compiler.cache_clear()
    told = (
        f"device.compile=default, but torch.compile does not work here: {reason}\n"
        "  install a C++ compiler (for CUDA also triton), or write device.compile=off"
    )
    settings = device_settings(compile="default")
    assert message_of(choose_device, settings) == told
    assert message_of(compiled(nn.Linear(2, 2), settings), torch.zeros(1, 2)) == told


@pytest.mark.slow
def test_a_run_without_a_compiler_ends_in_two_lines(tmp_path: Path) -> None:
    nowhere = {**os.environ, "CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "distill_run", *TINY, "device.compile=true"]
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere, cwd=tmp_path, check=False)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith("error: device.compile=default, but torch.compile does not work here: InvalidCxxCompiler: ")
    assert second == "  install a C++ compiler (for CUDA also triton), or write device.compile=off"


def test_networks_compute_in_the_chosen_precision() -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        device, layer = choose_device(wanted("cpu", precision)), nn.Linear(2, 2)
        with device.autocast():
            assert layer(torch.ones(1, 2)).dtype == dtype
        assert layer(torch.ones(1, 2)).dtype == layer.weight.dtype == torch.float32


def test_only_half_precision_scales_its_gradients() -> None:
    assert not choose_device(wanted("cpu", "fp32")).grad_scaler().is_enabled()
    assert not choose_device(wanted("cpu", "bf16")).grad_scaler().is_enabled()
    assert Device(wanted("cpu", "fp16"), ()).grad_scaler().is_enabled()


def test_weights_are_channels_last_where_asked_for_and_where_it_pays() -> None:
    for channels, setting, expected in ((8, True, True), (8, False, False), (4, True, False)):
        module = choose_device(wanted(channels_last=setting)).place(nn.Conv2d(3, channels, kernel_size=3))
        assert module.weight.is_contiguous(memory_format=torch.channels_last) is expected
        assert module(torch.rand(2, 3, 5, 5)).is_contiguous(memory_format=torch.channels_last) is expected


def test_the_peak_memory_of_the_cpu_is_not_measured() -> None:
    device = choose_device(wanted())
    device.reset_peak_memory()
    assert device.peak_memory_bytes() is None


@pytest.mark.parametrize(
    ("written", "word"),
    [("off", "off"), ("false", "off"), ("true", "default"), ("default", "default"), ("max", "max")],
)
def test_compile_is_a_word_and_the_flags_of_before_are_accepted(written: str, word: str) -> None:
    assert compose_config([f"device.compile={written}"]).device.compile == word


def test_an_off_in_a_file_is_what_it_says(tmp_path: Path) -> None:
    """To YAML, `off` is false."""
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "mine.yaml").write_text("defaults: [_common]\nkind: cpu\ncompile: off\n")
    assert compose_config(["device=mine"], tmp_path).device.compile == "off"


def test_tf32_is_for_cuda() -> None:
    told = "device.precision=tf32 is for CUDA, not for cpu\n  write device.precision=auto or fp32"
    assert message_of(choose_device, wanted("cpu", "tf32")) == told


def test_tf32_is_allowed_in_both_passes_of_a_training_and_nowhere_else() -> None:
    device = Device(wanted("cuda", "tf32"), ())
    for context in (device.autocast(), device.backward()):
        with context:
            assert tf32_is_allowed() == (True, True)
        assert tf32_is_allowed() == (False, False)
    with Device(wanted("cuda", "fp32"), ()).backward():
        assert tf32_is_allowed() == (False, False)
    assert storage_dtype(device.settings) == torch.float32


def tf32_is_allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_only_a_deterministic_training_forbids_fast_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    for deterministic in (False, True):
        choose_device(dataclasses.replace(wanted("cuda"), deterministic=deterministic))
        assert torch.backends.cudnn.deterministic is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic


def test_fused_kernels_are_chosen_on_cuda_where_nothing_else_is_asked_for() -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
    on_cuda = Device(wanted("cuda", "bf16"), ())
    assert on_cuda.fused(sgd, "optimizer") == {**sgd, "fused": True}
    for asked in ({**sgd, "fused": False}, {**sgd, "foreach": True}, {**sgd, "_target_": "torch.optim.RMSprop"}):
        assert on_cuda.fused(asked, "optimizer") == asked
    for kind, precision in (("cpu", "fp32"), ("mps", "fp32"), ("cuda", "fp16")):
        assert Device(wanted(kind, precision), ()).fused(sgd, "optimizer") == sgd
    told = (
        "training.student.optimizer.fused=true does not go with device.precision=fp16\n"
        "  leave it out, or choose another precision"
    )
    half = Device(wanted("cuda", "fp16"), ())
    assert message_of(half.fused, {**sgd, "fused": True}, "training.student.optimizer") == told


def test_keys_that_change_nothing_on_a_cpu_do_not_make_two_trainings_different() -> None:
    for kind, is_same in (("cpu", True), ("cuda", False)):
        device = dataclasses.replace(wanted(kind), compile="default")
        for other in ({"deterministic": False}, {"compile": "max"}):
            assert (dataclasses.replace(device, **other).inputs == device.inputs) is is_same
        assert dataclasses.replace(device, compile="off").inputs != device.inputs
