"""MobileNetV2 for small images: inverted residuals with linear bottlenecks."""

from typing import final

from torch import Tensor, nn

from distill_run.models.features import stage_points
from distill_run.models.layers import Pool, conv_norm, conv_norm_relu, init_convolutions
from distill_run.rules import POSITIVE, whole

# For each stage, its groups of blocks: channels at width 1, number of blocks, and stride of the first block.
STAGES = (
    ((16, 1, 1), (24, 2, 1)),
    ((32, 3, 2),),
    ((64, 4, 2), (96, 3, 1)),
    ((160, 3, 2), (320, 1, 1)),
)
LAST_WIDTH = 1280


@final
class MobileNetV2(nn.Module):
    """A stem that halves the map, four stages of inverted residuals, a 1x1 convolution: (N, C, H, W) to logits (N, K).

    `width` multiplies the channels of all convolutions but the last; `expansion` is the factor of all blocks but the
    first. No ReLU follows a stage. Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    2018, table 2, with the strides and the ReLU (not ReLU6) that Tian et al. use on CIFAR ("Contrastive Representation
    Distillation", 2020).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],  # noqa: ARG002 - any size will do
        num_classes: int,
        width: float,
        expansion: int,
    ) -> None:
        super().__init__()
        POSITIVE.check("width", width)
        whole(1).check("expansion", expansion)
        before = int(32 * width)
        self.stem = nn.Sequential(*conv_norm_relu(in_channels, before, 3, stride=2))
        self.stages = nn.Sequential()
        for place, groups in enumerate(STAGES):
            layers: list[nn.Module] = []
            for number, (channels, count, stride) in enumerate(groups):
                after = int(channels * width)
                for block in range(count):
                    factor = 1 if place == number == block == 0 else expansion
                    layers.append(InvertedResidual(before, after, factor, stride=stride if block == 0 else 1))
                    before = after
            self.stages.append(nn.Sequential(*layers))
        self.last = nn.Sequential(*conv_norm_relu(before, LAST_WIDTH, 1))
        self.pool = Pool()
        self.head = nn.Linear(LAST_WIDTH, num_classes)
        init_convolutions(self)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        points = stage_points([f"stages.{place}" for place in range(len(STAGES))])
        self.feature_points = {"stem": "stem", **points, "unpooled": "last", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.last(self.stages(self.stem(images)))))
        return logits


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a 3x3 one in each channel, and a 1x1 one back, without a ReLU at the end.

    The input is added where its shape is that of the result.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, *, stride: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.residual = nn.Sequential(
            *conv_norm_relu(in_channels, middle, 1),
            *conv_norm_relu(middle, middle, 3, stride=stride, groups=middle),
            *conv_norm(middle, out_channels, 1),
        )
        self.is_carried = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H / stride, W / stride)."""
        result: Tensor = self.residual(maps)
        return maps + result if self.is_carried else result
