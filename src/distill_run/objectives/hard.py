"""Hard targets: the student learns the class that the teacher chooses."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import hard_target_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import LogitObjective
from distill_run.rules import BELOW_ONE


@final
class HardTargets(LogitObjective):
    """(1 - alpha) * cross-entropy with the targets + alpha * cross-entropy with the teacher's argmax.

    `label_smoothing` applies to the second only. Source: Touvron et al., "Training data-efficient image transformers",
    2021, equation 3, with alpha in place of one half.
    """

    def __init__(self, *, alpha: float, label_smoothing: float, standardize_logits: bool | str) -> None:
        super().__init__()
        self.standardize(standardize_logits)
        self.weigh(alpha)
        BELOW_ONE.check("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See LogitObjective."""
        return hard_target_loss(student.logits, teacher.logits, self.label_smoothing)
