"""The contract between an objective and the training loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from distill_run.data.batches import Batch


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch: `logits` (N, K)."""

    logits: Tensor


class Objective(nn.Module, ABC):
    """A loss over a batch, with parameters of its own where it needs them.

    `needs` is what it asks of the teacher: "nothing" (then `teacher_outputs` is None) or "logits".
    """

    needs: ClassVar[Literal["nothing", "logits"]]

    @abstractmethod
    def losses(
        self, batch: Batch, student_outputs: Outputs, teacher_outputs: Outputs | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and its named parts, unweighted, for the record."""


def mix(cross_entropy: Tensor, distillation: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * cross_entropy + alpha * distillation; at 0 and at 1 the other term is left out exactly."""
    if alpha == 0:
        return cross_entropy
    if alpha == 1:
        return distillation
    return (1 - alpha) * cross_entropy + alpha * distillation
