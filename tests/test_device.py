"""Every `auto` becomes something, and says what and why; what is not there is refused."""

import pytest
import torch
from torch import nn

from distill_run.config.schema import DeviceSettings
from distill_run.engine.device import Device, choose_device
from helpers import message_of


def wanted(kind: str = "cpu", precision: str = "fp32", channels_last: bool = False) -> DeviceSettings:
    return DeviceSettings(kind=kind, precision=precision, channels_last=channels_last, compile=False)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bf16, precision, has in ((True, "bf16", "has"), (False, "fp32", "has no")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has_bf16: {"avx512_bf16": has}, raising=False)
        device = choose_device(wanted("auto", "auto", channels_last=True))
        assert device.settings == wanted("cpu", precision, channels_last=True)
        why = f"device.precision: auto -> {precision} (the CPU {has} AVX512-BF16)"
        assert device.notes == ("device: auto -> cpu (no GPU was found)", why)
        assert device.torch_device == torch.device("cpu")


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
