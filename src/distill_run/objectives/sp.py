"""Similarity preservation: samples that are alike to the teacher are to be alike to the student."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import similarity_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, total
from distill_run.rules import NOT_NEGATIVE, POINTS


@final
class SimilarityPreservation(Objective):
    """Cross-entropy + weight * the squared difference of the batch's similarity matrices, summed over the points.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019, section 3.
    """

    needs: Needs = "features"

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str]) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        return total(similarity_loss(*pair) for pair in self.features(student, teacher))
