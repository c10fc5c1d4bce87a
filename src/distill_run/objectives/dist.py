"""DIST: correlations instead of distances between the distributions."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.logits import correlation_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Objective
from distill_run.rules import FLAG, NOT_NEGATIVE, POSITIVE


@final
class Correlation(Objective):
    """Cross-entropy + weight * temperature^2 * Pearson's distances across the classes and across the batch.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022, equation 10; inter_weight and
    intra_weight are the paper's beta and gamma.
    """

    def __init__(
        self,
        *,
        temperature: float,
        inter_weight: float,
        intra_weight: float,
        weight: float,
        standardize_logits: bool,
    ) -> None:
        super().__init__()
        POSITIVE.check("temperature", temperature)
        weights = {"inter_weight": inter_weight, "intra_weight": intra_weight, "weight": weight}
        for name, value in weights.items():
            NOT_NEGATIVE.check(name, value)
        FLAG.check("standardize_logits", standardize_logits)
        self.temperature = temperature
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.weight = weight
        self.standardize_logits = standardize_logits

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        weights = self.inter_weight, self.intra_weight
        return correlation_loss(student.logits, teacher.logits_at(self.temperature), self.temperature, *weights)
