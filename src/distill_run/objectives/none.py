"""Cross-entropy alone, without a teacher, with a label smoothing of its own."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import cross_entropy
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import TargetObjective
from distill_run.rules import BELOW_ONE


@final
class CrossEntropy(TargetObjective):
    """Cross-entropy with the targets; the teacher, the baseline and the control mode=label_smoothing train with it.

    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016,
    section 7.
    """

    part = "cross_entropy"
    task_weight = 0.0

    def __init__(self, *, label_smoothing: float) -> None:
        super().__init__()
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def distillation(self, batch: Batch, student: Outputs) -> Tensor:
        """See TargetObjective."""
        return batch.mean_over_targets(
            lambda targets: cross_entropy(student.logits, targets, self.label_smoothing, reduction="none")
        )
