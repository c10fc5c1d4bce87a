"""DIST: the student's probabilities correlate with the teacher's, instead of being equal to them."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import correlation_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import LogitObjective
from distill_run.rules import NOT_NEGATIVE, POSITIVE


@final
class Correlation(LogitObjective):
    """Cross-entropy + weight * temperature^2 * Pearson's distances (1 - correlation).

    `inter_weight` weighs the correlations across the classes, `intra_weight` those across the batch; they are the
    paper's beta and gamma. Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, equation 10.
    """

    def __init__(
        self,
        *,
        temperature: float,
        inter_weight: float,
        intra_weight: float,
        weight: float,
        standardize_logits: bool | str,
    ) -> None:
        super().__init__()
        self.standardize(standardize_logits)
        POSITIVE.check("temperature", temperature)
        weights = {"inter_weight": inter_weight, "intra_weight": intra_weight, "weight": weight}
        for name, value in weights.items():
            NOT_NEGATIVE.check(name, value)
        self.temperature = temperature
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.weight = weight

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See LogitObjective."""
        weights = self.inter_weight, self.intra_weight
        return correlation_loss(student.logits, teacher.logits_at(self.temperature), self.temperature, *weights)
