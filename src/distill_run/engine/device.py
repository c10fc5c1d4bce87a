"""What computes, in which precision: every `auto` is resolved here, and says what it became and why."""

import dataclasses
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from distill_run.config.schema import DeviceSettings
from distill_run.engine.compilation import check_compiler
from distill_run.errors import user_error
from distill_run.processes import rank_in_torchrun

ModuleT = TypeVar("ModuleT", bound=nn.Module)

WIDE = 300  # multiply-adds for a value; from here on bf16 pays on a CPU
FUSED = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW")  # those with one kernel for all weights on CUDA
_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        if dtype is torch.float32:
            return self.backward()
        return torch.autocast(self.settings.kind, dtype)

    def backward(self) -> AbstractContextManager[None]:
        """The context of a backward pass: autocast remembers its precision, TF32 must be allowed again."""
        return _tf32() if self.settings.precision == "tf32" else nullcontext()

    def fused(self, optimizer: Mapping[str, Any], key: str) -> dict[str, Any]:
        """An optimizer's YAML, with torch's fused kernels where they are there and nothing else is asked for.

        `key` is its place in the configuration. Raises UserError where `fused` is asked for together with fp16.
        """
        wanted = dict(optimizer)
        if self.settings.precision == "fp16":
            # Torch's fused SGD leaves its momentum as uninitialised memory where the scaler skips the first step.
            if wanted.get("fused"):
                what = f"{key}.fused=true does not go with device.precision=fp16"
                raise user_error(what, "leave it out, or choose another precision")
        elif self.settings.kind == "cuda" and wanted["_target_"] in FUSED and not {"fused", "foreach"} & wanted.keys():
            wanted["fused"] = True
        return wanted

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients of fp16 from vanishing; does nothing in other precisions."""
        return torch.amp.GradScaler(self.settings.kind, enabled=self.settings.precision == "fp16")

    def free_bytes(self) -> float:
        """The memory that is free on a CUDA device; infinity where nobody says, or where the device has no own."""
        return torch.cuda.mem_get_info()[0] if self.settings.kind == "cuda" else math.inf

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
    return torch.float32 if _DTYPES[device.precision] is torch.float32 else torch.float16


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
    elif precision == "tf32" and kind != "cuda":
        raise user_error(f"device.precision=tf32 is for CUDA, not for {kind}", "write device.precision=auto or fp32")
    _check_processes(kind, wanted.num_processes)
    if kind == "cuda":
        _choose_algorithms(deterministic=wanted.deterministic)
    settings = dataclasses.replace(wanted, kind=kind, precision=precision)
    if settings.compile != "off":
        check_compiler(settings)
    return Device(settings, tuple(notes))


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


def _choose_algorithms(*, deterministic: bool) -> None:
    """Same command, same numbers: cuDNN and cuBLAS would otherwise choose algorithms that differ in rounding.

    Of the fast ones, cuDNN takes the one that is fastest when it is first tried.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    _allow_tf32(False)  # fp32 is fp32, also in evaluation


@contextmanager
def _tf32() -> Iterator[None]:
    """Within the block, CUDA computes products and convolutions of fp32 numbers in TF32."""
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    """Say whether CUDA may compute in TF32.

    By the interface that torch 2.6 has, too. It also sets the newer one (`fp32_precision`, from 2.9 on); the reverse is
    not so, and then torch raises an error wherever it reads the older one, as torch.compile does.
    """
    with warnings.catch_warnings():  # some versions say that the older one will be deprecated
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cuda.matmul.allow_tf32 = allowed
