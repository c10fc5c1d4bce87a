"""Soft targets: the student learns the teacher's softened distribution."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import DIVERGENCES, soft_target_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import LogitObjective
from distill_run.rules import POSITIVE, one_of


@final
class SoftTargets(LogitObjective):
    """(1 - alpha) * cross-entropy + alpha * weight * temperature^2 * divergence of the softened distributions.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    def __init__(
        self, *, temperature: float, alpha: float, weight: float, divergence: str, standardize_logits: bool | str
    ) -> None:
        super().__init__()
        self.standardize(standardize_logits)
        self.weigh(alpha, weight)
        POSITIVE.check("temperature", temperature)
        one_of(*DIVERGENCES).check("divergence", divergence)
        self.temperature = temperature
        self.divergence = divergence

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See LogitObjective."""
        return soft_target_loss(student.logits, teacher.logits_at(self.temperature), self.temperature, self.divergence)
