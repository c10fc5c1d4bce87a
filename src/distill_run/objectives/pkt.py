"""Probabilistic knowledge transfer: two images become neighbours for the student as probably as for the teacher."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import probability_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective


@final
class ProbabilisticTransfer(FeatureObjective):
    """Cross-entropy + weight * KL of the probabilities of being neighbours in the batch, summed over the points.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, section 3.
    """

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(probability_loss, student, teacher)
