"""Losses that compare the relations between the samples of a batch: pure functions, in float32 or wider.

Features are (N, ...). All dimensions but the first are flattened, so student and teacher may have different shapes. No
gradient flows to the teacher. One image has no relations: the loss of a batch of one is 0, and so is its gradient.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, cat, stack
from torch.linalg import vector_norm
from torch.utils.checkpoint import checkpoint

from distill_run.losses.numerics import unit_rows, wide

PROBABILITY_FLOOR = 1e-7
PORTION = 2**24  # the most numbers of one tensor, where a whole one would have N^3 or N^2 * D of them


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference between the Gram matrices (N, N) of both networks, whose rows have length 1.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", 2019, section 3.
    """
    ours, theirs = (unit_rows(vectors @ vectors.T) for vectors in _vectors(student, teacher))
    return F.mse_loss(ours, theirs)


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss between the pairwise distances of both networks, each divided by its mean.

    The mean of the distances is over pairs of different samples. The loss is averaged over all N^2 pairs, as in the
    authors' program, for which the usual weight of 25 is meant; a sample's distance to itself adds 0. Source: Park et
    al., "Relational Knowledge Distillation", 2019, section 3.2.1.
    """
    ours, theirs = (_relative_distances(vectors) for vectors in _vectors(student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss between the cosines of angles in both networks; an angle is at one sample, between two others.

    It is averaged over all N^3 triples, as in the authors' program, for which the usual weight of 50 is meant; a triple
    that holds one sample twice adds 0. Between samples that coincide there is no direction: the cosine is 0, without a
    gradient. Source: Park et al., "Relational Knowledge Distillation", 2019, section 3.2.2.
    """
    ours, theirs = _vectors(student, teacher)
    return stack(_in_portions(_summed_angle_loss, ours, theirs)).sum() / len(ours) ** 3


def probability_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the probabilities that two samples are neighbours, averaged over all N^2 pairs.

    The probability of a pair is (cosine + 1) / 2, divided by the sum of its row; 1e-7 keeps the quotient finite. A
    sample counts as its own neighbour, as in the authors' program, for which the usual weight of 30000 is meant; the
    paper leaves it out. Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge
    Transfer", 2018, section 3.
    """
    ours, theirs = (_neighbours(vectors) for vectors in _vectors(student, teacher))
    return (theirs * ((theirs + PROBABILITY_FLOOR) / (ours + PROBABILITY_FLOOR)).log()).mean()


def _vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return wide(student).flatten(1), wide(teacher.detach()).flatten(1)


def _relative_distances(vectors: Tensor) -> Tensor:
    """Distances (N, N), divided by their mean over pairs of different samples; all 0 where all samples coincide."""
    num = len(vectors)
    distances = cat(_in_portions(_distances_from, vectors))
    mean = distances.sum() / max(num * (num - 1), 1)
    return distances / mean.where(mean > 0, 1)


def _neighbours(vectors: Tensor) -> Tensor:
    """The probabilities (N, N) that each sample (row) has each other one as its neighbour."""
    units = unit_rows(vectors)
    likeness = ((units @ units.T + 1) / 2).clamp_min(0)  # rounding may give a cosine below -1
    probabilities: Tensor = likeness / likeness.sum(dim=1, keepdim=True)
    return probabilities


def _distances_from(seeing: slice, vectors: Tensor) -> Tensor:
    # Subtract first: |a|^2 + |b|^2 - 2ab would lose the distance between vectors that are long and close.
    distances: Tensor = vector_norm(vectors[seeing, None] - vectors, dim=-1)
    return distances


def _summed_angle_loss(seeing: slice, student: Tensor, teacher: Tensor) -> Tensor:
    """Huber's loss, summed over the triples whose angle is at one of the samples `seeing`."""
    ours, theirs = (_cosines_at(seeing, vectors) for vectors in (student, teacher))
    return F.smooth_l1_loss(ours, theirs, reduction="sum")


def _cosines_at(seeing: slice, vectors: Tensor) -> Tensor:
    directions = unit_rows(vectors - vectors[seeing, None])
    return directions @ directions.mT


def _in_portions(function: Callable[..., Tensor], *several: Tensor) -> list[Tensor]:
    """The results of `function(slice, *several)` for slices of the batch; `several` are vectors (N, D) of all samples.

    A slice is so small that N * max(N, D) numbers for each of its samples are at most PORTION. With more than one
    slice, the graph keeps only the vectors, and the backward pass computes each slice again: that saves memory.
    """
    num = len(several[0])
    largest = max(vectors.shape[1] for vectors in several)
    size = max(PORTION // (num * max(num, largest)), 1)
    if size >= num:
        return [function(slice(num), *several)]
    portions = [slice(start, start + size) for start in range(0, num, size)]
    return [checkpoint(function, each, *several, use_reentrant=False, preserve_rng_state=False) for each in portions]
