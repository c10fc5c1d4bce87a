"""Variational information distillation: the student predicts the teacher's features and how certain it is."""

import math
from typing import final

import torch
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import LEAST_VARIANCE, meet, variational_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Pair
from distill_run.objectives.projections import map_shape

INITIAL_VARIANCE = 5.0


@final
class VariationalInformation(FeatureObjective):
    """Cross-entropy + weight * the negative log-likelihood of the teacher's features, summed over the points.

    The likelihood is a Gaussian. Three 1x1 convolutions compute its mean from the student's features, and each channel
    has a variance, at first 5; both are learned. The larger map is pooled to the size of the smaller; a vector counts
    as a map of one pixel. Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", 2019,
    section 2.1; the layers are those of its authors' code.
    """

    def fit_to(self, pair: Pair) -> None:
        """See FeatureObjective."""
        self.means, self.scales = nn.ModuleList(), nn.ParameterList()
        initial = math.log(math.expm1(INITIAL_VARIANCE - LEAST_VARIANCE))  # softplus of it is the variance
        for student, teacher in zip(pair.student, pair.teacher, strict=True):
            before, after = map_shape("student", student)[0], map_shape("teacher", teacher)[0]
            first, second, third = (nn.Conv2d(width, after, 1, bias=False) for width in (before, after, after))
            self.means.append(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third))
            self.scales.append(nn.Parameter(torch.full((after,), initial)))

    def distillation(self, _: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        """See FeatureObjective."""
        return self.sum_over_points(_negative_log_likelihood, student, teacher, self.means, self.scales)


def _negative_log_likelihood(student: Tensor, teacher: Tensor, mean: nn.Module, scale: Tensor) -> Tensor:
    student_map, teacher_map = meet(student, teacher)
    return variational_loss(mean(student_map), teacher_map, scale)
