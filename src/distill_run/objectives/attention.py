"""Attention transfer: the student's maps are to have their energy where the teacher's have it."""

from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.errors import user_error
from distill_run.losses.features import attention_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, Pair, total
from distill_run.rules import NOT_NEGATIVE, POINTS, whole


@final
class Attention(Objective):
    """Cross-entropy + weight * the squared differences of normalised attention maps, summed over the points.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017, section 3.1.
    """

    needs: Needs = "features"

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str], power: int) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        whole(1).check("power", power)  # below 1, the gradient at a feature of 0 is not finite
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points
        self.power = power

    def fit_to(self, pair: Pair) -> None:
        """See Objective."""
        for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
            for shape in shapes:
                if len(shape) != 3:
                    raise user_error(
                        f"the {network}'s features are of shape {shape}, and only a map has places to attend to",
                        f"choose maps in mode.{network}_points, as [stages]",
                    )

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        return total(attention_loss(*pair, self.power) for pair in self.features(student, teacher))
