"""When a training learns that a number was not finite: at once, or later, without waiting for a GPU at every step."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from distill_run.engine.device import Device

CHECK_STEPS = 100  # of the optimizer, at most, between two looks at what the device has remembered


class Check(Protocol):
    """Is told of each loss and each gradient whether it is finite."""

    def fails(self, finite: Tensor) -> bool:
        """Whether the training must stop here; `finite` is a scalar on the device."""

    def keep(self, state_of: Callable[[], dict[str, Any]]) -> None:
        """Take what `state_of` returns, a state in which all is finite, as the one to go back to."""

    def state_to_go_back_to(self) -> dict[str, Any] | None:
        """What was kept last, if something was not finite since then; None if all was finite."""


class AtOnce:
    """Waits for the device each time: nothing that is not finite ever reaches the weights."""

    def fails(self, finite: Tensor) -> bool:
        """See Check."""
        return not finite

    def keep(self, state_of: Callable[[], dict[str, Any]]) -> None:
        """See Check."""

    def state_to_go_back_to(self) -> None:
        """See Check."""


class Later:
    """Remembers on the device whether all was finite, and keeps a copy of the last state that is known to be good.

    The training goes on in the meantime. Where something was not finite, the training is to return to the copy, and to
    take its steps again with AtOnce: so it stops at the same step, with the same weights, momentum and message. The
    copy takes as much memory as weights, buffers and the optimizer's state.
    """

    def __init__(self, device: torch.device) -> None:
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.state: dict[str, Any] = {}

    def fails(self, finite: Tensor) -> bool:
        """See Check; never here."""
        self.finite &= finite
        return False

    def keep(self, state_of: Callable[[], dict[str, Any]]) -> None:
        """See Check."""
        self.state = copied(state_of())

    def state_to_go_back_to(self) -> dict[str, Any] | None:
        """See Check; waits for the device."""
        return None if self.finite else self.state


def check_for(device: Device) -> Check:
    """The check that suits a device: a GPU that waits is idle; the scaler of fp16 waits at every step anyway."""
    if device.settings.kind == "cuda" and device.settings.precision != "fp16":
        return Later(device.torch_device)
    return AtOnce()


def copied(value: Any) -> Any:
    """Dictionaries, lists and tuples of tensors and plain values, with a copy of every tensor on its device."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
