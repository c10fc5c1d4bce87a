"""The mathematics of losses that compare features sample by sample: pure functions, in float32 or wider.

N is the batch; features are maps (N, C, H, W), and a vector is a map of one pixel. Each function returns a scalar, and
lets no gradient flow to the teacher. Maps of different sizes meet at the smaller one.
"""

from math import inf

import torch.nn.functional as F
from torch import Tensor, float32, promote_types
from torch.linalg import vector_norm


def hint_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference of projected features and the teacher's, both (N, C, H, W).

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, equation 3, as a mean over all elements instead
    of half a sum.
    """
    projected, teacher = pool_to_smaller(wide(projected), wide(teacher.detach()))
    return F.mse_loss(projected, teacher)


def attention_loss(student: Tensor, teacher: Tensor, power: int) -> Tensor:
    """The mean squared difference of normalised attention maps, of (N, C, H, W) and (N, C', H', W').

    A sample's attention is the mean over the channels of |features|^power, a vector of H * W divided by its length.
    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017, section 3.1, as a mean over pixels and
    batch, which is what the usual weight of 1000 belongs to.
    """
    student, teacher = pool_to_smaller(wide(student), wide(teacher.detach()))
    ours, theirs = (unit_rows(maps.abs().pow(power).mean(dim=1).flatten(1)) for maps in (student, teacher))
    return F.mse_loss(ours, theirs)


def variational_loss(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """The negative log-likelihood, without its constant, of the teacher's features under a Gaussian of each channel.

    `mean` and `teacher` are (N, C, H, W), `variance` (C,) above 0. The result is averaged over all elements, in nats,
    and is negative where the variance is small enough. Source: Ahn et al., "Variational Information Distillation for
    Knowledge Transfer", 2019, equation 5.
    """
    mean, teacher = pool_to_smaller(wide(mean), wide(teacher.detach()))
    spread = wide(variance)[:, None, None]
    return ((mean - teacher).square() / spread + spread.log()).mean() / 2


def pool_to_smaller(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (N, C, H, W) and (N, C', H', W'), averaged over patches to the smaller height and the smaller width."""
    size = min(left.shape[2], right.shape[2]), min(left.shape[3], right.shape[3])
    return _pooled(left, size), _pooled(right, size)


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def unit_rows(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their lengths; one of zeros, which has no direction, stays so and has no gradient."""
    lengths = vector_norm(vectors, dim=-1, keepdim=True)
    # Dividing by a tiny number instead, as normalize does, would give such a vector a gradient of 1e12.
    return vectors / lengths.where(lengths > 1e-12, inf)


def wide(features: Tensor) -> Tensor:
    """At least float32: sums of squares overflow in half precision."""
    return features.to(promote_types(features.dtype, float32))
