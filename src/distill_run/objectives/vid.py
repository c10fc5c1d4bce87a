"""Variational information distillation: the student is to predict the teacher's features, and how surely."""

import math
from typing import final

import torch
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import LEAST_VARIANCE, meet, variational_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Needs, Objective, Pair, total
from distill_run.objectives.projections import map_shape
from distill_run.rules import NOT_NEGATIVE, POINTS

INITIAL_VARIANCE = 5.0


@final
class VariationalInformation(Objective):
    """Cross-entropy + weight * the negative log-likelihood of the teacher's features, summed over the points.

    Three 1x1 convolutions give the mean of a Gaussian; a channel's variance begins at 5. Both learn. The larger map is
    pooled to the smaller, and a vector is a map of one pixel. Source: Ahn et al., "Variational Information Distillation
    for Knowledge Transfer", 2019, section 2.1; the layers are those of its authors' code.
    """

    needs: Needs = "features"

    def __init__(self, *, weight: float, student_points: list[str], teacher_points: list[str]) -> None:
        super().__init__()
        NOT_NEGATIVE.check("weight", weight)
        POINTS.check("student_points", student_points)
        POINTS.check("teacher_points", teacher_points)
        self.weight = weight
        self.student_points, self.teacher_points = student_points, teacher_points
        self.means = nn.ModuleList()
        self.scales = nn.ParameterList()

    def fit_to(self, pair: Pair) -> None:
        """See Objective."""
        initial = math.log(math.expm1(INITIAL_VARIANCE - LEAST_VARIANCE))  # softplus of it is the variance
        for student, teacher in zip(pair.student, pair.teacher, strict=True):
            before, after = map_shape("student", student)[0], map_shape("teacher", teacher)[0]
            first, second, third = (nn.Conv2d(width, after, 1, bias=False) for width in (before, after, after))
            self.means.append(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third))
            self.scales.append(nn.Parameter(torch.full((after,), initial)))

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:  # noqa: ARG002
        """See Objective."""
        assert teacher is not None
        pairs = zip(self.means, self.scales, self.features(student, teacher), strict=True)
        terms = []
        for mean, scale, (ours, theirs) in pairs:
            student_map, teacher_map = meet(ours, theirs)
            terms.append(variational_loss(mean(student_map), teacher_map, scale))
        return total(terms)
