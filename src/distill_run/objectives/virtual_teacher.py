"""A virtual teacher, made from the targets: a control that shows how much of a gain needs no real teacher."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import virtual_teacher_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import TargetObjective
from distill_run.rules import INSIDE_UNIT, POSITIVE


@final
class VirtualTeacher(TargetObjective):
    """(1 - alpha) * cross-entropy + alpha * temperature^2 * KL(virtual teacher || student), both softened.

    The virtual teacher gives `correct_probability` to the target and shares the rest equally among the other classes.
    Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization" (Tf-KD_reg), 2020,
    equation 10, with Hinton's temperature^2.
    """

    def __init__(self, *, temperature: float, alpha: float, correct_probability: float) -> None:
        super().__init__()
        self.weigh(alpha)
        POSITIVE.check("temperature", temperature)
        INSIDE_UNIT.check("correct_probability", correct_probability)
        self.temperature = temperature
        self.correct_probability = correct_probability

    def distillation(self, batch: Batch, student: Outputs) -> Tensor:
        """See TargetObjective."""
        how = self.temperature, self.correct_probability
        return batch.mean_over_targets(
            lambda targets: virtual_teacher_loss(student.logits, targets, *how, reduction="none")
        )
