"""Relational distillation: the student learns the teacher's distances and angles between the images of a batch."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import angle_loss, distance_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective
from distill_run.rules import NOT_NEGATIVE


@final
class Relations(FeatureObjective):
    """Cross-entropy + weight * (distance_weight * distances + angle_weight * angles), summed over the points.

    Source: Park et al., "Relational Knowledge Distillation", 2019, section 3.2.
    """

    def __init__(
        self,
        *,
        weight: float,
        student_points: list[str],
        teacher_points: list[str],
        distance_weight: float,
        angle_weight: float,
    ) -> None:
        super().__init__(weight=weight, student_points=student_points, teacher_points=teacher_points)
        NOT_NEGATIVE.check("distance_weight", distance_weight)
        NOT_NEGATIVE.check("angle_weight", angle_weight)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(self._compare, student, teacher)

    def _compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        distances, angles = distance_loss(student, teacher), angle_loss(student, teacher)
        return self.distance_weight * distances + self.angle_weight * angles
