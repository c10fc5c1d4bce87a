"""What the loop asks of others: the teacher's outputs, and somebody to tell."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs

Guide = Callable[[Batch], Outputs]  # gives the teacher's outputs for a batch


class LoopWatcher(Protocol):
    """Who is told how a training goes, step by step."""

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """After each optimizer step, numbered from 1; reading the loss costs a synchronisation of the device."""

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """After each epoch, with its line of metrics.jsonl."""

    def state_saved(self, state: dict[str, Any]) -> None:
        """With the state that a resume goes on from: after each epoch, now and then, and where it is cut short."""
