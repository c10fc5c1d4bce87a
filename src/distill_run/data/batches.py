"""Batches: what a step of training is given, and the order in which samples are served."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill_run.data.draws import stream
from distill_run.processes import ALONE, Processes

UNLABELLED = -1  # the target of an image without one
LEAST_WEIGHT = 1e-12  # keeps a batch without labelled samples from dividing 0 by 0


@dataclass(frozen=True)
class Batch:
    """Samples `indices` (N,) of the training split, as images (N, C, H, W) in 0..1 of one view, with targets (N,).

    Unlabelled samples have indices after those of the training split, and the target UNLABELLED.
    `epoch` (from 1) and `step` (from 0) say when they are served. Mixed samples have a part of another's target:
    `partner_targets` (N,), and `shares` (N,) of their own, from 0 to 1; otherwise both are None. `host_indices` are the
    indices on the CPU, where they are known there: to read them back from a GPU is to wait for it.
    """

    indices: Tensor
    images: Tensor
    targets: Tensor
    view: int
    epoch: int = 1
    step: int = 0
    partner_targets: Tensor | None = None
    shares: Tensor | None = None
    host_indices: Tensor | None = None

    def part(self, chosen: slice, step: int) -> "Batch":
        """The chosen samples as the batch of a step of their own."""
        sometimes = self.partner_targets, self.shares, self.host_indices
        partners, shares, host_indices = (None if each is None else each[chosen] for each in sometimes)
        return replace(
            self,
            indices=self.indices[chosen],
            images=self.images[chosen],
            targets=self.targets[chosen],
            step=step,
            partner_targets=partners,
            shares=shares,
            host_indices=host_indices,
        )

    def mean_over_targets(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean of a loss (N,) that is a function of targets (N,), over the labelled samples; 0 if there is none.

        A mixed sample has the loss of both targets, weighted by their shares. For a loss that is linear in the
        distribution of the targets, as cross-entropy is, this equals the loss of the mixed distribution. A part that is
        unlabelled counts neither in the sum nor in what it is divided by.
        """
        if self.partner_targets is None or self.shares is None:
            is_labelled = (self.targets != UNLABELLED).float()
            return (loss(self.targets.clamp_min(0)) * is_labelled).sum() / is_labelled.sum().clamp_min(LEAST_WEIGHT)
        losses, weights = [], []
        for targets, shares in ((self.targets, self.shares), (self.partner_targets, 1 - self.shares)):
            weights.append(shares * (targets != UNLABELLED))
            losses.append((loss(targets.clamp_min(0)) * weights[-1]).sum())
        return sum(losses[1:], losses[0]) / torch.stack(weights).sum().clamp_min(LEAST_WEIGHT)


class Batches(ABC):
    """The training split in batches, with the unlabelled samples if there are any; `targets` (M,) are those of both.

    The order of an epoch is a pure function of (seed, epoch). An epoch serves each sample once, unless `balance` or
    `share_unlabelled` is called. The unlabelled samples are spread evenly: each batch has the same share of them, to
    rounding. Where several `processes` train, each batch of this one is its share of a batch of all.
    """

    balanced_targets: Tensor | None = None
    processes: Processes = ALONE

    def __init__(self, targets: Tensor, batch_size: int, seed: int) -> None:
        self.num_labelled = int((targets != UNLABELLED).sum())
        self.num_unlabelled = self.served_unlabelled = len(targets) - self.num_labelled
        self.batch_size = batch_size
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """How many samples an epoch serves."""
        return self.num_labelled + self.served_unlabelled

    @property
    def num_steps(self) -> int:
        """Batches in an epoch. A last batch of one image is left out: batch norm cannot train on it."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return max(full + (rest > 1), 1)

    def balance(self, targets: Tensor) -> None:
        """Let epochs draw as many labelled samples, whose targets are `targets` (M,), with replacement.

        Each class is drawn with the same probability.
        """
        self.balanced_targets = targets.cpu()

    def share_unlabelled(self, share: float) -> None:
        """Let epochs draw so many unlabelled samples that they are that share, above 0 and below 1, of all."""
        self.served_unlabelled = round(self.num_labelled * share / (1 - share)) if self.num_unlabelled else 0

    def order(self, epoch: int) -> Tensor:
        """The indices of the samples, on the CPU, in the order of an epoch (from 1)."""
        generator = torch.Generator().manual_seed(stream("order", self.seed, epoch) >> 1)
        if self.balanced_targets is None:
            labelled = torch.randperm(self.num_labelled, generator=generator)
        else:
            labelled = draw_balanced(self.balanced_targets, generator)
        if not self.served_unlabelled:
            return labelled
        unlabelled = self.num_labelled + draw_evenly(self.num_unlabelled, self.served_unlabelled, generator)
        return spread_evenly(labelled, unlabelled)

    def own_shares(self, order: Tensor) -> list[Tensor]:
        """The indices of the samples of each batch that this process serves; `order` is that of an epoch."""
        batches = torch.split(order, self.batch_size)[: self.num_steps]
        return [batch[self.processes.share(len(batch))] for batch in batches]

    def close(self) -> None:  # noqa: B027  # most have nothing to free
        """Free what served the batches, such as worker processes; a later epoch makes it anew."""

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


def draw_evenly(num_samples: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices (count,) of samples, at random; none is drawn again before all are."""
    rounds = [torch.randperm(num_samples, generator=generator) for _ in range(-(-count // num_samples))]
    return torch.cat(rounds)[:count]


def spread_evenly(many: Tensor, others: Tensor) -> Tensor:
    """Both one-dimensional tensors in one, each in its order, in which every stretch has the same share of `others`.

    That share is exact but for rounding to the number below or above.
    """
    size = len(many) + len(others)
    counts = torch.arange(size + 1) * len(others) // size
    is_other = counts.diff() > 0
    mixed = torch.empty(size, dtype=many.dtype)
    mixed[is_other], mixed[~is_other] = others, many
    return mixed
