"""No teacher: cross-entropy alone."""

from typing import ClassVar, Literal, final

from torch import Tensor

from distill_run.accept import BELOW_ONE
from distill_run.data.batches import Batch
from distill_run.losses import cross_entropy
from distill_run.objectives.base import Objective, Outputs


@final
class CrossEntropy(Objective):
    """Cross-entropy with the targets: how the teacher and the baseline train."""

    needs: ClassVar[Literal["nothing", "logits"]] = "nothing"

    def __init__(self, *, label_smoothing: float) -> None:
        super().__init__()
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def losses(
        self,
        batch: Batch,
        student_outputs: Outputs,
        teacher_outputs: Outputs | None,  # noqa: ARG002
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Objective."""
        loss = cross_entropy(student_outputs.logits, batch.targets, self.label_smoothing)
        return loss, {"cross_entropy": loss}
