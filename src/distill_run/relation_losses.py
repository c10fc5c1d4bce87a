"""The mathematics of losses that compare relations between the samples of a batch: pure functions, in float32 or wider.

Features are (N, ...), of any shapes, which need not agree between student and teacher; each sample's are one vector.
Each function returns a scalar, and lets no gradient flow to the teacher. A batch of one image has no relations: its
loss is 0, with a gradient of 0.
"""

from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, cat, stack
from torch.linalg import vector_norm
from torch.utils.checkpoint import checkpoint

from distill_run.feature_losses import unit_rows, wide

SMALLEST_PROBABILITY = 1e-7
MOST_NUMBERS = 2**22  # that one step over all triples may hold at once


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||similarities of the student - those of the teacher||^2 / N^2, of matrices (N, N) whose rows have length 1.

    Similarities are inner products of the samples' features. Source: Tung and Mori, "Similarity-Preserving Knowledge
    Distillation", 2019, equations 1 to 4.
    """
    ours, theirs = (unit_rows(rows @ rows.T) for rows in _vectors(student, teacher))
    return F.mse_loss(ours, theirs)


def relative_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The Huber loss of the distances between samples, in units of their mean over pairs of different samples.

    It is averaged over all N^2 pairs; that of a sample with itself adds 0, as in the authors' program, which the usual
    weight of 25 belongs to. Source: Park et al., "Relational Knowledge Distillation", 2019, equations 6 to 9.
    """
    ours, theirs = (_relative_distances(vectors) for vectors in _vectors(student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The Huber loss of the cosines of the angles in which a sample sees two others.

    It is averaged over all N^3 triples; one with a sample twice adds 0 or next to it, as in the authors' program, which
    the usual weight of 50 belongs to. Where two samples coincide there is no angle: its cosine counts as 0, without a
    gradient. Source: Park et al., "Relational Knowledge Distillation", 2019, equations 10 and 11.
    """
    ours, theirs = _vectors(student, teacher)
    num = len(ours)
    largest = num * max(num, ours.shape[1], theirs.shape[1])
    steps = [_cheaply(partial(_summed_angle_loss, ours, theirs), some) for some in _parts_of(num, largest)]
    return stack(steps).sum() / num**3


def probability_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over pairs (i, j) of p_t log((p_t + 1e-7) / (p_s + 1e-7)), p the probability that j is a neighbour of i.

    It is proportional to (cosine similarity + 1) / 2, and i is its own neighbour too, as in the authors' program, which
    the usual weight of 30000 belongs to; the paper leaves that pair out. Source: Passalis and Tefas, "Learning Deep
    Representations with Probabilistic Knowledge Transfer", 2018, equations 3 to 6.
    """
    ours, theirs = (_neighbour_probabilities(vectors) for vectors in _vectors(student, teacher))
    ratio = (theirs + SMALLEST_PROBABILITY) / (ours + SMALLEST_PROBABILITY)
    return (theirs * ratio.log()).mean()
