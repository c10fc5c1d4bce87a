"""Relational distillation: distances and angles between samples are to be the teacher's."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import angle_loss, distance_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, total
from distill_run.rules import NOT_NEGATIVE, POINTS


@final
class Relations(Objective):
    """Cross-entropy + weight * (distance_weight * distances + angle_weight * angles), summed over the points.

    Source: Park et al., "Relational Knowledge Distillation", 2019, section 3.2.
    """

    needs: Needs = "features"

    def __init__(
        self,
        *,
        weight: float,
        student_points: list[str],
        teacher_points: list[str],
        distance_weight: float,
        angle_weight: float,
    ) -> None:
        super().__init__()
        weights = {"weight": weight, "distance_weight": distance_weight, "angle_weight": angle_weight}
        for name, value in weights.items():
            NOT_NEGATIVE.check(name, value)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        return total(
            self.distance_weight * distance_loss(*pair) + self.angle_weight * angle_loss(*pair)
            for pair in self.features(student, teacher)
        )
