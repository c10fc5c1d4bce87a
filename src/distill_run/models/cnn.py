"""Plain convolutional networks, the family of the first experiment."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from distill_run.models.features import INPUT, stage_points
from distill_run.models.mlp import linear_layers
from distill_run.rules import BELOW_ONE, HIDDEN_WIDTHS, WIDTHS


@final
class CNN(nn.Module):
    """Stages of a 3x3 convolution, a ReLU and a 2x2 max-pool, then linear layers: (N, C, H, W) to logits (N, K).

    The pools round up, so an image of any size keeps at least one pixel. With batch norm the convolutions have no bias,
    because the norm would cancel it. The points are the stages after pool and ReLU, `stageN_preact` between the two,
    and `pooled`, the input of the last linear layer.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        widths: Sequence[int],
        hidden: Sequence[int],
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        WIDTHS.check("widths", list(widths))
        HIDDEN_WIDTHS.check("hidden", list(hidden))
        BELOW_ONE.check("dropout", dropout)
        stages = [
            _stage(before, after, batch_norm) for before, after in zip([in_channels, *widths], widths, strict=False)
        ]
        self.stages = nn.Sequential(*stages)
        height, width = (_pooled_size(side, len(stages)) for side in image_size)
        self.head = linear_layers([widths[-1] * height * width, *hidden, num_classes], dropout)
        preact = [f"stages.{place}.{len(stage) - 1}{INPUT}" for place, stage in enumerate(stages)]
        points = stage_points([f"stages.{place}" for place in range(len(stages))], preact)
        self.feature_points = {**points, "pooled": f"head.{len(self.head) - 1}{INPUT}"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        features: Tensor = self.stages(images)
        logits: Tensor = self.head(features.flatten(1))
        return logits


def _stage(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    # The order of ReLU and max-pool does not change the result; after the pool the ReLU has a quarter of the work.
    return nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True), nn.ReLU())


def _pooled_size(side: int, pools: int) -> int:
    """The length of a side after that many 2x2 pools, which round up."""
    for _ in range(pools):
        side = (side + 1) // 2
    return side
