"""Probabilistic knowledge transfer: samples are to be neighbours as probably as they are to the teacher."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.losses.relations import probability_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, total
from distill_run.rules import NOT_NEGATIVE, POINTS


@final
class ProbabilisticTransfer(Objective):
    """Cross-entropy + weight * KL of the probabilities of being neighbours in the batch, summed over the points.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018, section 3.
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
        return total(probability_loss(*pair) for pair in self.features(student, teacher))
