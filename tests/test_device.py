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
@pytest.mark.parametrize(
    ("has_bf16", "precision", "why"),
    [(True, "bf16", "the CPU has AVX512-BF16"), (False, "fp32", "the CPU has no AVX512-BF16")],
)
def test_auto_without_a_gpu_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str, why: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)
    device = choose_device(wanted("auto", "auto", channels_last=True))
    assert device.settings == wanted("cpu", precision, channels_last=True)
    assert device.notes == ("device: auto -> cpu (no GPU was found)", f"device.precision: auto -> {precision} ({why})")
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


def test_what_is_named_is_taken_without_a_note() -> None:
    assert choose_device(wanted("cpu", "bf16")) == Device(wanted("cpu", "bf16"), ())


def test_choosing_twice_changes_nothing() -> None:
    once = choose_device(wanted("cpu", "auto"))
    assert choose_device(once.settings) == Device(once.settings, ())


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(kind: str) -> None:
    expected = f"device={kind} is not there\n  write device=auto; torch finds cpu"
    assert message_of(choose_device, wanted(kind)) == expected


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("kind", ["cpu", "auto"])
def test_half_precision_on_the_cpu_is_refused(kind: str) -> None:
    expected = "device.precision=fp16 is not for the CPU\n  write device.precision=bf16 or fp32"
    assert message_of(choose_device, wanted(kind, "fp16")) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_networks_compute_in_the_chosen_precision(precision: str, dtype: torch.dtype) -> None:
    device = choose_device(wanted("cpu", precision))
    layer = nn.Linear(2, 2)
    with device.autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer(torch.ones(1, 2)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_only_half_precision_scales_its_gradients() -> None:
    assert not choose_device(wanted("cpu", "fp32")).grad_scaler().is_enabled()
    assert not choose_device(wanted("cpu", "bf16")).grad_scaler().is_enabled()
    assert Device(wanted("cpu", "fp16"), ()).grad_scaler().is_enabled()


@pytest.mark.parametrize(("channels", "setting", "expected"), [(8, True, True), (8, False, False), (4, True, False)])
def test_weights_are_channels_last_where_asked_for_and_where_it_pays(
    channels: int, setting: bool, expected: bool
) -> None:
    module = choose_device(wanted(channels_last=setting)).place(nn.Conv2d(3, channels, kernel_size=3))
    assert module.weight.is_contiguous(memory_format=torch.channels_last) is expected
    assert module(torch.rand(2, 3, 5, 5)).is_contiguous(memory_format=torch.channels_last) is expected


def test_the_peak_memory_of_the_cpu_is_not_measured() -> None:
    device = choose_device(wanted())
    device.reset_peak_memory()
    assert device.peak_memory_bytes() is None
