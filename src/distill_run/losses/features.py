"""Losses that compare the features of student and teacher image by image: pure functions, in float32 or wider.

Features are maps (N, C, H, W), or vectors (N, C), which count as maps of 1x1. No gradient flows to the teacher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_run.losses.numerics import as_maps, unit_rows, wide

LEAST_VARIANCE = 1e-5
POOLED_SIZES = (4, 2, 1)


def meet(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps (N, C, H, W), pooled to the smaller height and the smaller width; the teacher's is detached."""
    student, teacher = as_maps(wide(student)), as_maps(wide(teacher.detach()))
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled_to(size, student), _pooled_to(size, teacher)


def _pooled_to(size: tuple[int, int], maps: Tensor) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def hint_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference between the projected features and the teacher's; both have C channels.

    The larger map is pooled first. Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, section 2.2. The
    paper takes half of the sum; this is the mean over all elements, for which the usual weight of 100 is meant.
    """
    return F.mse_loss(*meet(projected, teacher))


def attention_loss(student: Tensor, teacher: Tensor, power: int) -> Tensor:
    """The squared difference between the attention maps of both networks, averaged over batch and positions.

    The larger map is pooled first. Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017,
    section 3.1. Equation 2 takes a norm; this is the mean over positions, as in the authors' code.
    """
    ours, theirs = (attention_map(maps, power) for maps in meet(student, teacher))
    return F.mse_loss(ours, theirs)


def attention_map(maps: Tensor, power: int) -> Tensor:
    """The mean over channels of |maps|^power, divided by its L2 norm: (N, C, H, W) to (N, H * W).

    A map of zeros gives a row of zeros.
    """
    return unit_rows(maps.abs().pow(power).mean(1).flatten(1))


def variational_loss(mean: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """The negative log-likelihood of the teacher's maps under a Gaussian, averaged over all elements, in nats.

    `mean` and `teacher` are (N, C, H, W). The variance of each channel is softplus(scale) + 1e-5, with scale (C,). The
    constant of the Gaussian is left out, so a small variance gives a loss below 0. Source: Ahn et al., "Variational
    Information Distillation for Knowledge Transfer", 2019, section 2.1.
    """
    variance = (F.softplus(wide(scale)) + LEAST_VARIANCE).view(1, -1, 1, 1)
    return ((wide(teacher.detach()) - wide(mean)).square() / variance + variance.log()).mean() / 2


def hierarchical_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of two maps (N, C, H, W), and of both averaged to 4x4, 2x2 and 1x1 patches.

    The weights are 1 for the maps, then 1/2, 1/4 and 1/8 for those sizes that are smaller than the maps, divided by the
    sum of the weights in use. Returns a scalar. Source: Chen et al., "Distilling Knowledge via Knowledge Review",
    2021, section 3.3 and figure 3 (b).
    """
    sizes = [size for size in POOLED_SIZES if size < min(student.shape[2:])]
    losses = [F.mse_loss(student, teacher)]
    losses += [F.mse_loss(F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)) for size in sizes]
    weights = [0.5**level for level in range(len(losses))]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)
