"""Losses that compare how the samples of a batch relate to each other: pure functions, in float32 or wider.

Features are (N, ...); all that follows the batch is flattened, so that student and teacher need not have one shape. No
gradient flows to the teacher's. One image has no relations: the loss of a batch of one is 0, and so is its gradient.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, cat, stack
from torch.linalg import vector_norm
from torch.utils.checkpoint import checkpoint

from distill_run.losses.features import unit_rows, wide

PROBABILITY_FLOOR = 1e-7
PORTION = 2**24  # numbers: the size to which tensors are kept that would have N^3 or N^2 * D of them


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared Frobenius norm of the difference of the row-normalised Gram matrices, divided by N^2.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019, section 3.
    """
    ours, theirs = (unit_rows(vectors @ vectors.T) for vectors in _vectors(student, teacher))
    return F.mse_loss(ours, theirs)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss of the distances between samples, in units of their mean over pairs of different samples.

    It is averaged over all N^2 pairs, as in the authors' program, which the usual weight of 25 belongs to; that of a
    sample with itself adds 0. Source: Park et al., "Relational Knowledge Distillation", 2019, section 3.2.1.
    """
    ours, theirs = (_relative_distances(vectors) for vectors in _vectors(student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss of the cosines of the angles in which each sample sees any two others.

    It is averaged over all N^3 triples, as in the authors' program, which the usual weight of 50 belongs to; one with
    the same sample twice adds 0. Two samples that coincide span no angle: its cosine is 0, without a gradient. Source:
    Park et al., "Relational Knowledge Distillation", 2019, section 3.2.2.
    """
    ours, theirs = _vectors(student, teacher)
    return stack(_in_portions(_summed_angle_loss, ours, theirs)).sum() / len(ours) ** 3


def probability_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the probabilities that samples are neighbours, averaged over all N^2 pairs.

    A pair's probability is (cosine + 1) / 2 divided by the sum of its row; 1e-7 keeps the quotient finite. A sample is
    its own neighbour too, as in the authors' program, which the usual weight of 30000 belongs to; the sums of the paper
    leave it out. Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer",
    2018, section 3.
    """
    ours, theirs = (_neighbours(vectors) for vectors in _vectors(student, teacher))
    return (theirs * ((theirs + PROBABILITY_FLOOR) / (ours + PROBABILITY_FLOOR)).log()).mean()


def _vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return wide(student).flatten(1), wide(teacher.detach()).flatten(1)


def _relative_distances(vectors: Tensor) -> Tensor:
    """Distances (N, N) divided by their mean over pairs of different samples; all 0 where the samples coincide."""
    num = len(vectors)
    distances = cat(_in_portions(_distances_from, vectors))
    mean = distances.sum() / max(num * (num - 1), 1)
    return distances / mean.where(mean > 0, 1)


def _neighbours(vectors: Tensor) -> Tensor:
    units = unit_rows(vectors)
    likeness = ((units @ units.T + 1) / 2).clamp_min(0)  # rounding takes a cosine below -1
    probabilities: Tensor = likeness / likeness.sum(dim=1, keepdim=True)
    return probabilities


def _distances_from(seeing: slice, vectors: Tensor) -> Tensor:
    # Of differences: |a|^2 + |b|^2 - 2ab would lose the distance of vectors that are long and close.
    distances: Tensor = vector_norm(vectors[seeing, None] - vectors, dim=-1)
    return distances


def _summed_angle_loss(seeing: slice, student: Tensor, teacher: Tensor) -> Tensor:
    """The sum over the triples whose angle lies at one of the samples `seeing`."""
    ours, theirs = (_cosines_at(seeing, vectors) for vectors in (student, teacher))
    return F.smooth_l1_loss(ours, theirs, reduction="sum")


def _cosines_at(seeing: slice, vectors: Tensor) -> Tensor:
    directions = unit_rows(vectors - vectors[seeing, None])
    return directions @ directions.mT


def _in_portions(function: Callable[..., Tensor], *several: Tensor) -> list[Tensor]:
    """What the function gives for the samples, in portions, and of all vectors (N, D).

    A portion is so small that N * max(N, D) numbers for each of its samples stay within PORTION. Where there are
    several, only the vectors are kept: the backward pass computes each portion once more.
    """
    num = len(several[0])
    size = max(PORTION // (num * max(num, *(vectors.shape[1] for vectors in several))), 1)
    if size >= num:
        return [function(slice(num), *several)]
    portions = [slice(start, start + size) for start in range(0, num, size)]
    return [checkpoint(function, each, *several, use_reentrant=False, preserve_rng_state=False) for each in portions]
