"""torch.compile: what a network becomes, and what is said where there is no compiler."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from distill_run.config.schema import DeviceSettings
from distill_run.errors import user_error


@cache
def check_compiler(device: DeviceSettings) -> None:
    """Compile a sum; raises UserError where torch.compile finds no compiler for the device."""
    compiled(lambda numbers: numbers + numbers.sin(), device)(torch.zeros(2, device=device.kind))


def compiled(
    function: Callable[[Tensor], Tensor], device: DeviceSettings, *, with_graphs: bool = True
) -> Callable[[Tensor], Tensor]:
    """A network or a function as `device.compile` says; a call raises UserError where it cannot be compiled.

    The network itself is left as it is: evaluations call it, and compute the same as the file that is shipped. Without
    `with_graphs`, max counts as default.
    """
    if device.compile == "off":
        return function
    # Else what was compiled for one network is used for the next of its kind, whose features would not be read.
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    is_max = device.compile == "max" and device.kind == "cuda" and with_graphs
    # A graph is of one batch size: the last batch of an epoch gets one of its own.
    made = torch.compile(function, mode="reduce-overhead", dynamic=False) if is_max else torch.compile(function)

    def call(values: Tensor) -> Tensor:
        if is_max:  # from here on, a graph may overwrite what the last step has left
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return made(values)
        except RuntimeError as error:
            if not any(kind.__name__ == "TorchDynamoException" for kind in type(error).__mro__):
                raise
            lines = [line for line in str(error).splitlines() if line and not line.endswith(" raised:")]
            raise user_error(
                f"device.compile={device.compile}, but torch.compile does not work here: "
                f"{[*lines, type(error).__name__][0]}",
                "install a C++ compiler (for CUDA also triton), or write device.compile=off",
            ) from error

    return call
