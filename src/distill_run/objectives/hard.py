"""Hard targets: the teacher's decision."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import hard_target_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Objective
from distill_run.rules import BELOW_ONE, FLAG


@final
class HardTargets(Objective):
    """(1 - alpha) * cross-entropy with the targets + alpha * cross-entropy with the teacher's argmax.

    The label smoothing is that of the second. Source: Touvron et al., "Training data-efficient image transformers",
    2021, equation 3, with alpha in place of one half.
    """

    def __init__(self, *, alpha: float, label_smoothing: float, standardize_logits: bool) -> None:
        super().__init__()
        self.weigh(alpha)
        BELOW_ONE.check("label_smoothing", label_smoothing)
        FLAG.check("standardize_logits", standardize_logits)
        self.label_smoothing = label_smoothing
        self.standardize_logits = standardize_logits

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        return hard_target_loss(student.logits, teacher.logits, self.label_smoothing)
