"""FitNets: the student's features, after a learned projection, imitate the teacher's."""

from typing import final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import hint_loss
from distill_run.losses.numerics import as_maps
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Pair
from distill_run.objectives.projections import map_shape, regressor
from distill_run.rules import FLAG


@final
class Hints(FeatureObjective):
    """Cross-entropy + weight * the mean squared difference of projected and teacher's features, summed over the points.

    With `last_relu`, the projection ends with a ReLU, as the teacher's layer does; write false for a teacher whose
    features may be negative. A vector counts as a map of one pixel. Source: Romero et al., "FitNets: Hints for Thin
    Deep Nets", 2015, section 2.2, in one stage together with the cross-entropy.
    """

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str], last_relu: bool) -> None:
        super().__init__(weight=weight, student_points=student_points, teacher_points=teacher_points)
        FLAG.check("last_relu", last_relu)
        self.last_relu = last_relu

    def fit_to(self, pair: Pair) -> None:
        """See FeatureObjective."""
        self.projections = nn.ModuleList(
            regressor(map_shape("student", ours), map_shape("teacher", theirs), self.last_relu)
            for ours, theirs in zip(pair.student, pair.teacher, strict=True)
        )

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(_projected_difference, student, teacher, self.projections)


def _projected_difference(student: Tensor, teacher: Tensor, projection: nn.Module) -> Tensor:
    return hint_loss(projection(as_maps(student)), teacher)
