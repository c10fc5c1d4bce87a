"""Similarity preservation: images that are similar for the teacher become similar for the student."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import similarity_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective


@final
class SimilarityPreservation(FeatureObjective):
    """Cross-entropy + weight * the squared difference of the batch's similarity matrices, summed over the points.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019, section 3.
    """

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(similarity_loss, student, teacher)
