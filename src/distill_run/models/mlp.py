"""Multi-layer perceptrons: models without convolutions."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from distill_run.rules import BELOW_ONE, HIDDEN_WIDTHS


@final
class MLP(nn.Module):
    """Linear layers over all pixels, with a ReLU between them: images (N, C, H, W) to logits (N, K)."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        HIDDEN_WIDTHS.check("hidden", list(hidden))
        BELOW_ONE.check("dropout", dropout)
        self.head = linear_layers([in_channels * prod(image_size), *hidden, num_classes], dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(images.flatten(1))
        return logits


def linear_layers(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1], with a ReLU between them, and dropout before each if it is above 0."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
