"""Batches: the order in which samples are served, and in which view."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_run.data.draws import fold
from distill_run.data.source import Split
from distill_run.data.views import Views


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
        """The mean of a loss (N,) that is a function of targets (N,); mixed samples have both targets by their shares.

        Of a loss that is linear in the targets' distribution, as cross-entropy is, that is the loss of the mixed one.
        """
        own = loss(self.targets)
        if self.partner_targets is None or self.shares is None:
            return own.mean()
        return torch.lerp(loss(self.partner_targets), own, self.shares.to(own.dtype)).mean()


class Batches:
    """The training split in batches; the order of an epoch is a pure function of (seed, epoch).

    `num_views` says how many views the epochs cycle through; None means a new one for each epoch.
    """

    def __init__(
        self,
        split: Split,
        views: Views,
        batch_size: int,
        seed: int,
        num_views: int | None,
    ) -> None:
        self.split = split
        self.views = views
        self.batch_size = batch_size
        self.seed = seed
        self.num_views = num_views

    @property
    def num_steps(self) -> int:
        """Batches in an epoch. A last batch of one image is left out: batch norm cannot train on it."""
        full, rest = divmod(len(self.split), self.batch_size)
        return max(full + (rest > 1), 1)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (from 1), beginning with step number `first_step` (from 0)."""
        generator = torch.Generator().manual_seed(fold(self.seed, epoch) >> 1)
        order = torch.randperm(len(self.split), generator=generator).to(self.split.targets.device)
        view = epoch - 1 if self.num_views is None else (epoch - 1) % self.num_views
        for step in range(first_step, self.num_steps):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size], view, epoch, step)

    def _batch(self, indices: Tensor, view: int, epoch: int, step: int) -> Batch:
        images, targets = self.views.render(indices, view), self.split.targets
        batch = Batch(indices, images, targets[indices], view, epoch, step)
        mixture = self.views.mixture(indices, view)
        if mixture is None:
            return batch
        return dataclasses.replace(batch, partner_targets=targets[mixture.partners], shares=mixture.shares)
