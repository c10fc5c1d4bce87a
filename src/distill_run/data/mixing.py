"""Mixup and CutMix as part of a view: a sample's partner and share are a pure function of (seed, view, sample).

Teacher and student therefore see the same mixture, the logit bank holds the teacher's logits of it, and neither the
batch nor its order changes it, as it does where a sample is mixed with its neighbour in the batch.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from distill_run.data.boxes import boxes
from distill_run.data.draws import CPU, Draws, stream

NUM_SHARES = 1024  # quantiles of the Beta distribution that shares are drawn from


@dataclass(frozen=True)
class Mixture:
    """What a batch is mixed with: samples `partners` (N,), on the CPU; `weights` (N, 1, H, W) of its own pixels."""

    partners: Tensor
    weights: Tensor

    @property
    def shares(self) -> Tensor:
        """How much (N,) of each mixture is the sample's own, from 0 to 1: the weight of its own target."""
        return self.weights.mean((1, 2, 3))

    def mix(self, own: Tensor, partners: Tensor) -> Tensor:
        """The mixture (N, C, H, W) of a batch's own images and those of its partners."""
        return torch.lerp(partners, own, self.weights)


class Mixing:
    """Draws mixtures: mixup of whole images, CutMix of a box. Each has the parameter of a Beta distribution.

    A parameter of 0 leaves that one out. If both are above 0, each sample takes one of them, with equal chances.
    Sources: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, equation 2; Yun et al., "CutMix", 2019,
    equations 1 and 2.
    """

    def __init__(self, num_samples: int, image_size: tuple[int, int], mixup: float, cutmix: float) -> None:
        self.num_samples = num_samples
        self.image_size = image_size
        self.parameters = [(is_box, a) for is_box, a in ((False, mixup), (True, cutmix)) if a > 0]

    def partners(self, indices: Tensor, seed: int, view: int) -> Tensor:
        """The samples (N,) that those at `indices` (N,) are mixed with in a view; all is on the CPU."""
        return Draws(indices, stream("mixing", seed, view)).on_cpu(self.num_samples)

    def draw(self, indices: Tensor, seed: int, view: int, device: torch.device = CPU) -> Mixture:
        """The mixtures of the samples at `indices` (N,), given on the CPU, in a view, for images on a device."""
        draw = Draws(indices, stream("mixing", seed, view), device)
        partners, kind, place = draw.on_cpu(self.num_samples), draw(len(self.parameters)), draw(NUM_SHARES)
        row, column = draw(self.image_size[0]), draw(self.image_size[1])
        weights = torch.empty(len(indices), 1, *self.image_size, device=device)
        for number, (is_box, parameter) in enumerate(self.parameters):
            shares = _quantiles(parameter, device)[place]
            own = self._outside_box(shares, row, column) if is_box else shares.view(-1, 1, 1, 1).expand_as(weights)
            weights = torch.where((kind == number).view(-1, 1, 1, 1), own, weights)
        return Mixture(partners, weights)

    def _outside_box(self, shares: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """0 (N, 1, H, W) inside a box around (row, column) with 1 - share of the image's area, 1 outside of it."""
        height, width = self.image_size
        side = (1 - shares).sqrt()
        return (~boxes(row, column, side * height, side * width, self.image_size)).float()


@cache
def _quantiles(parameter: float, device: torch.device) -> Tensor:
    """The quantiles (NUM_SHARES,) of Beta(parameter, parameter), at the middle of equal steps, on a device."""
    from scipy.stats import beta  # takes a second to import, and few runs mix images

    steps = (torch.arange(NUM_SHARES, dtype=torch.float64) + 0.5) / NUM_SHARES
    return torch.from_numpy(beta.ppf(steps.numpy(), parameter, parameter)).float().to(device)
