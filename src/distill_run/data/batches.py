"""Batches: what a step of training is given, and the order in which samples are served."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_run.data.draws import stream


@dataclass(frozen=True)
class Batch:
    """Samples `indices` (N,) of the training split, as images (N, C, H, W) in 0..1 of one view, with targets (N,).

    `epoch` (from 1) and `step` (from 0) say when they are served. Mixed samples have a part of another's target:
    `partner_targets` (N,), and `shares` (N,) of their own, from 0 to 1; otherwise both are None.
    """

    indices: Tensor
    images: Tensor
    targets: Tensor
    view: int
    epoch: int = 1
    step: int = 0
    partner_targets: Tensor | None = None
    shares: Tensor | None = None

    def mean_over_targets(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of a loss (N,) that is a function of targets (N,).

        A mixed sample has the loss of both targets, weighted by their shares. For a loss that is linear in the
        distribution of the targets, as cross-entropy is, this equals the loss of the mixed distribution.
        """
        own = loss(self.targets)
        if self.partner_targets is None or self.shares is None:
            return own.mean()
        return torch.lerp(loss(self.partner_targets), own, self.shares.to(own.dtype)).mean()


class Batches(ABC):
    """The training split in batches; the order of an epoch is a pure function of (seed, epoch).

    An epoch serves each sample once, unless `balance` is called.
    """

    balanced_targets: Tensor | None = None

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed

    @property
    def num_steps(self) -> int:
        """Batches in an epoch. A last batch of one image is left out: batch norm cannot train on it."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return max(full + (rest > 1), 1)

    def balance(self, targets: Tensor) -> None:
        """Let epochs draw as many samples with replacement, each class of `targets` (M,) with the same probability."""
        self.balanced_targets = targets.cpu()

    def order(self, epoch: int) -> Tensor:
        """The indices of the samples, on the CPU, in the order of an epoch (from 1)."""
        generator = torch.Generator().manual_seed(stream("order", self.seed, epoch) >> 1)
        if self.balanced_targets is not None:
            return draw_balanced(self.balanced_targets, generator)
        return torch.randperm(self.num_samples, generator=generator)

    @abstractmethod
    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 1), beginning with step number `first_step` (from 0)."""


def draw_balanced(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Indices (M,) of as many samples as there are targets (M,): first a class that has samples, then one of them."""
    counts = torch.bincount(targets)
    present = counts.nonzero().flatten()
    classes = present[torch.randint(len(present), targets.shape, generator=generator)]
    places = torch.rand(targets.shape, generator=generator, dtype=torch.float64) * counts[classes]
    starts = counts.cumsum(0) - counts
    return targets.argsort(stable=True)[starts[classes] + places.long()]
