"""FitNets: the student's features, projected, are to be the teacher's."""

from typing import final

from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import hint_loss
from distill_run.losses.numerics import as_maps
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, Pair, total
from distill_run.objectives.projections import map_shape, regressor
from distill_run.rules import FLAG, NOT_NEGATIVE, POINTS


@final
class Hints(Objective):
    """Cross-entropy + weight * the mean squared difference of projected and teacher's features, summed over the points.

    `last_relu` ends the projection with a ReLU, as the teacher's layer does; it is false where the teacher's features
    may be negative, which no ReLU reaches. A vector is a map of one pixel. Source: Romero et al., "FitNets: Hints for
    Thin Deep Nets", 2015, section 2.2, in one stage together with the cross-entropy.
    """

    needs: Needs = "features"

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str], last_relu: bool) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        FLAG.check("last_relu", last_relu)
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points
        self.last_relu = last_relu
        self.projections = nn.ModuleList()

    def fit_to(self, pair: Pair) -> None:
        """See Objective."""
        for student, teacher in zip(pair.student, pair.teacher, strict=True):
            ours, theirs = map_shape("student", student), map_shape("teacher", teacher)
            self.projections.append(regressor(ours, theirs, self.last_relu))

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        pairs = zip(self.projections, self.features(student, teacher), strict=True)
        return total(hint_loss(projection(as_maps(ours)), theirs) for projection, (ours, theirs) in pairs)
