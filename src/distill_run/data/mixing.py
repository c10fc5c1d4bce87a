"""Mixup and CutMix as part of a view: whom a sample is mixed with, and how, is a pure function of (seed, view, sample).

Teacher and student therefore see the same mixture, the logit bank holds what the teacher says of it, and neither the
batch nor its order plays a part, as it does where a sample's partner is its neighbour in the batch.
"""

from dataclasses import dataclass

import torch
from scipy.stats import beta
from torch import Tensor

from distill_run.data.draws import Draws, fold

NUM_SHARES = 1024  # quantiles of the Beta distribution that shares are drawn from
STREAM = 1  # of the draws for mixing; the rest of the view has its own


@dataclass(frozen=True)
class Mixture:
    """The samples `partners` (N,) that a batch is mixed with, and the weight (N, 1, H, W) of its own pixels."""

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
    """Draws mixtures: by `mixup` of whole images, by `cutmix` of a box, each the parameter of a Beta distribution.

    0 leaves one out; where both are above 0, each sample takes one or the other, with equal chances. Sources: Zhang et
    al., "mixup: Beyond Empirical Risk Minimization", 2018, equation 2; Yun et al., "CutMix", 2019, equations 1 and 2.
    """

    def __init__(self, num_samples: int, image_size: tuple[int, int], mixup: float, cutmix: float) -> None:
        self.num_samples = num_samples
        self.mixup, self.cutmix = mixup, cutmix
        self.height, self.width = image_size
        self.quantiles = [(is_box, _quantiles(a)) for is_box, a in ((False, mixup), (True, cutmix)) if a > 0]

    def draw(self, indices: Tensor, seed: int, view: int) -> Mixture:
        """The mixtures of the samples at `indices` (N,) in a view."""
        draw = Draws(indices, fold(seed, view, STREAM))
        partners, kind, place = draw(self.num_samples), draw(len(self.quantiles)), draw(NUM_SHARES)
        row, column = draw(self.height), draw(self.width)
        weights = torch.empty(len(indices), 1, self.height, self.width, device=indices.device)
        for number, (is_box, quantiles) in enumerate(self.quantiles):
            shares = quantiles.to(indices.device)[place]
            own = self._outside_box(shares, row, column) if is_box else shares.view(-1, 1, 1, 1).expand_as(weights)
            weights = torch.where((kind == number).view(-1, 1, 1, 1), own, weights)
        return Mixture(partners, weights)

    def _outside_box(self, shares: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """0 (N, 1, H, W) in a box of 1 - share of the image around (row, column), which may reach over it; else 1."""
        rows = _outside(row, (1 - shares).sqrt() * self.height, self.height)
        columns = _outside(column, (1 - shares).sqrt() * self.width, self.width)
        return (rows.unsqueeze(2) | columns.unsqueeze(1)).float().unsqueeze(1)


def _outside(centre: Tensor, length: Tensor, side: int) -> Tensor:
    """True (N, side) at the positions that lie outside `length` (N,), rounded down, around each centre (N,)."""
    length = length.long().unsqueeze(1)
    first = centre.unsqueeze(1) - length // 2
    positions = torch.arange(side, device=centre.device)
    return (positions < first) | (positions >= first + length)


def _quantiles(parameter: float) -> Tensor:
    """The quantiles (NUM_SHARES,) of Beta(parameter, parameter), at the middle of equal steps."""
    steps = (torch.arange(NUM_SHARES, dtype=torch.float64) + 0.5) / NUM_SHARES
    return torch.from_numpy(beta.ppf(steps.numpy(), parameter, parameter)).float()
