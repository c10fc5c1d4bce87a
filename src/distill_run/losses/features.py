"""Losses that compare features of student and teacher, sample by sample: pure functions, in float32 or wider.

Features are maps (N, C, H, W), or vectors (N, C), which count as maps of 1x1. No gradient flows to the teacher's.
"""

from math import inf

import torch.nn.functional as F
from torch import Tensor, float32, promote_types
from torch.linalg import vector_norm

LEAST_VARIANCE = 1e-5


def as_maps(features: Tensor) -> Tensor:
    """Features (N, C, H, W) as they are, and (N, C) as maps of 1x1."""
    return features if features.ndim == 4 else features[:, :, None, None]


def wide(features: Tensor) -> Tensor:
    """At least float32: sums of squares overflow in half precision."""
    return features.to(promote_types(features.dtype, float32))


def unit_rows(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their lengths; one of zeros, which has no direction, stays so and has no gradient."""
    lengths = vector_norm(vectors, dim=-1, keepdim=True)
    # Dividing by a tiny number instead, as F.normalize does, would give such a vector a gradient of 1e12.
    units: Tensor = vectors / lengths.where(lengths > 1e-12, inf)
    return units


def meet(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, C, H, W), each pooled to the smaller height and width of both; the teacher's is detached."""
    student, teacher = as_maps(wide(student)), as_maps(wide(teacher.detach()))
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    pooled = [each if each.shape[2:] == size else F.adaptive_avg_pool2d(each, size) for each in (student, teacher)]
    return pooled[0], pooled[1]


def hint_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of the projected features and the teacher's, both of C channels.

    The larger map is pooled first. Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, section 2.2, with
    a mean over all elements, which the usual weight of 100 belongs to, in place of half a sum.
    """
    return F.mse_loss(*meet(projected, teacher))


def attention_loss(student: Tensor, teacher: Tensor, power: int) -> Tensor:
    """The mean squared difference of the normalised attention maps, averaged over batch and positions.

    The attention map of features (N, C, H, W) is mean over channels of |feature|^power, divided by its L2 norm. The
    larger map is pooled first. Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017, section
    3.1, with the mean over positions of its authors' code in place of the norm of equation 2.
    """
    ours, theirs = (attention_map(maps, power) for maps in meet(student, teacher))
    return F.mse_loss(ours, theirs)


def attention_map(maps: Tensor, power: int) -> Tensor:
    """Where maps (N, C, H, W) have their energy: (N, H * W), each row of L2 norm 1; or 0 where a map is."""
    return unit_rows(maps.abs().pow(power).mean(1).flatten(1))


def variational_loss(mean: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """The negative log-likelihood of the teacher's maps under a Gaussian, without its constant, averaged over all.

    `mean` and `teacher` are (N, C, H, W); the variance of each channel is softplus(scale) + 1e-5, scale (C,). In nats,
    and below 0 where the variance is small enough. Source: Ahn et al., "Variational Information Distillation for
    Knowledge Transfer", 2019, section 2.1.
    """
    variance = (F.softplus(wide(scale)) + LEAST_VARIANCE).view(1, -1, 1, 1)
    return ((wide(teacher.detach()) - wide(mean)).square() / variance + variance.log()).mean() / 2
