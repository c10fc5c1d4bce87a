"""Attention transfer: the student learns where in its maps the teacher has large activations."""

from functools import partial
from typing import final

from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.errors import user_error
from distill_run.losses.features import attention_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Pair
from distill_run.rules import whole


@final
class Attention(FeatureObjective):
    """Cross-entropy + weight * the mean squared difference of normalised attention maps, summed over the points.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017, section 3.1.
    """

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str], power: int) -> None:
        super().__init__(weight=weight, student_points=student_points, teacher_points=teacher_points)
        whole(1).check("power", power)  # below 1, the gradient at a feature of 0 is not finite
        self.power = power

    def fit_to(self, pair: Pair) -> None:
        """See FeatureObjective; refuses features that are not maps."""
        for network, shapes in (("student", pair.student), ("teacher", pair.teacher)):
            for shape in shapes:
                if len(shape) != 3:
                    raise user_error(
                        f"the {network}'s features are of shape {shape}, but attention maps need (C, H, W)",
                        f"choose maps in mode.{network}_points, as in [stages]",
                    )

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(partial(attention_loss, power=self.power), student, teacher)
