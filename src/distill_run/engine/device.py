"""What computes, in which precision: every `auto` is resolved here, and says what it became and why."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from distill_run.config.schema import DeviceSettings
from distill_run.errors import user_error
from distill_run.processes import rank_in_torchrun

ModuleT = TypeVar("ModuleT", bound=nn.Module)

WIDE = 300  # multiply-adds for a value; from here on bf16 pays on a CPU
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device with its precision; `notes` say what each `auto` became.

    On a CPU that computes bf16, the precision may stay `auto`: then `for_work` chooses it for each network.
    """

    settings: DeviceSettings
    notes: tuple[str, ...]

    @property
    def torch_device(self) -> torch.device:
        """The device, as torch names it."""
        return torch.device(self.settings.kind)

    def for_work(self, work: float) -> "Device":
        """The device in the precision that suits a network whose layers do so much `work`: see network.mean_work.

        Measured on 2 cores with AVX512-BF16: cnn_large (about 470) is 1.7 times as fast in bf16 as in fp32,
        cnn_small (22 to 33) 0.7 times. Networks for images of 224 pixels are wide, and faster in bf16.
        """
        assert self.settings.precision == "auto"
        precision = "bf16" if work >= WIDE else "fp32"
        note = (
            f"device.precision: auto -> {precision} (about {work:.0f} multiply-adds for a value; on the CPUs "
            f"that were measured, bf16 is faster from about {WIDE} on)"
        )
        return Device(dataclasses.replace(self.settings, precision=precision), (note,))

    def place(self, module: ModuleT) -> ModuleT:
        """The module, moved to the device, its weights channels-last where that is asked for and pays.

        Convolutions with such weights give channels-last outputs, whatever the format of the images.
        """
        wants_it = self.settings.channels_last and (self.settings.kind != "cpu" or _fills_vectors(module))
        memory_format = torch.channels_last if wants_it else torch.contiguous_format
        return module.to(self.torch_device).to(memory_format=memory_format)

    def seed(self, seed: int) -> None:
        """Seed what layers such as dropout draw from; torch.manual_seed asks for all devices at each call."""
        torch.default_generator.manual_seed(seed)
        if self.settings.kind == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.settings.kind == "mps":
            torch.mps.manual_seed(seed)

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which networks compute in the chosen precision."""
        dtype = _DTYPES[self.settings.precision]
        return torch.autocast(self.settings.kind, dtype, enabled=dtype is not torch.float32)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients of fp16 from vanishing; does nothing in other precisions."""
        return torch.amp.GradScaler(self.settings.kind, enabled=self.settings.precision == "fp16")

    def reset_peak_memory(self) -> None:
        """Begin to measure the peak memory of a stage."""
        if self.settings.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_memory_bytes(self) -> int | None:
        """The most memory that tensors took on the device since the reset; None where that is not measured."""
        return torch.cuda.max_memory_allocated() if self.settings.kind == "cuda" else None


def _fills_vectors(module: nn.Module) -> bool:
    """Whether every convolution has at least 8 channels: with fewer, channels-last batch norm is slow on a CPU.

    With 4 channels it took ten times as long as in the contiguous format (AVX2, torch 2.15).
    """
    return all(conv.out_channels >= 8 for conv in module.modules() if isinstance(conv, nn.Conv2d))


def storage_dtype(device: DeviceSettings) -> torch.dtype:
    """How a network's outputs are stored: in no less than the precision that they were computed in."""
    return torch.float32 if device.precision == "fp32" else torch.float16


def choose_device(wanted: DeviceSettings) -> Device:
    """The device that the settings name, or the best there is for `auto`.

    Raises UserError for a device that is not there or a precision that it cannot do.
    """
    notes = []
    kind, precision = wanted.kind, wanted.precision
    if kind == "auto":
        kind, why = _best_kind()
        notes.append(f"device: auto -> {kind} ({why})")
    elif kind not in (available := _available_kinds()):
        raise user_error(f"device={kind} is not there", f"write device=auto; torch finds {', '.join(available)}")
    if precision == "auto" and not (kind == "cpu" and _cpu_has_bf16()):
        precision, why = _best_precision(kind)
        notes.append(f"device.precision: auto -> {precision} ({why})")
    elif precision == "fp16" and kind == "cpu":
        raise user_error("device.precision=fp16 is not for the CPU", "write device.precision=bf16 or fp32")
    _check_processes(kind, wanted.num_processes)
    if kind == "cuda":
        _make_cuda_repeatable()
    if wanted.compile:
        check_compiler(kind)
    return Device(dataclasses.replace(wanted, kind=kind, precision=precision), tuple(notes))


def _check_processes(kind: str, num_processes: int) -> None:
    """Raise UserError where the processes to be started on this machine find no GPU of their own."""
    if num_processes == 1 or kind == "cpu" or rank_in_torchrun() is not None:
        return
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if num_processes > there:
        raise user_error(
            f"device.num_processes={num_processes}, but there {'is 1 GPU' if there == 1 else f'are {there} GPUs'}",
            f"write device.num_processes={there}, or device=cpu",
        )


@cache
def check_compiler(kind: str) -> None:
    """Compile a sum; raises UserError where torch.compile finds no compiler for the device."""
    compiled(lambda numbers: numbers + numbers.sin())(torch.zeros(2, device=kind))


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What torch.compile makes of a network or a function; a call raises UserError where it cannot be compiled."""
    made = torch.compile(function)

    def call(values: Tensor) -> Tensor:
        try:
            return made(values)
        except RuntimeError as error:
            if not any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__):
                raise
            lines = [line for line in str(error).splitlines() if line and not line.endswith(" raised:")]
            raise user_error(
                f"device.compile=true, but torch.compile does not work here: {[*lines, type(error).__name__][0]}",
                "install a C++ compiler (for CUDA also triton), or write device.compile=false",
            ) from error

    return call


def _available_kinds() -> list[str]:
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind, is_there in found.items() if is_there]


def _best_kind() -> tuple[str, str]:
    available = _available_kinds()
    if "cuda" in available:
        return "cuda", torch.cuda.get_device_name()
    if "mps" in available:
        return "mps", "no CUDA device was found"
    return "cpu", "no GPU was found"


def _best_precision(kind: str) -> tuple[str, str]:
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU computes it natively"
        return "fp32", "the GPU has no bf16"
    return "fp32", "the CPU has no AVX512-BF16" if kind == "cpu" else "the safe choice on mps"


def _cpu_has_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    # Older versions of torch have no public name for it; Linux lists the flags of the CPU.
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.is_file() and "avx512_bf16" in cpu_info.read_text(encoding="utf-8").split()


def _make_cuda_repeatable() -> None:
    """Same command, same numbers: cuDNN and cuBLAS would otherwise choose algorithms that differ in rounding."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, also in evaluation
