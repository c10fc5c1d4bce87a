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


def mix(cross_entropy: Tensor, distillation: Tensor, alpha: float) -> tuple[Tensor, dict[str, Tensor]]:
    """(1 - alpha) * cross_entropy + alpha * distillation, and the two parts; what `Objective.losses` returns.

    At alpha 0 and 1 the other term is left out exactly, so that nothing of it reaches a gradient.
    """
    parts = {"cross_entropy": cross_entropy, "distillation": distillation}
    if alpha == 0:
        return cross_entropy, parts
    if alpha == 1:
        return distillation, parts
    return (1 - alpha) * cross_entropy + alpha * distillation, parts
