"""Residual networks for small images: a 3x3 stem without a pool, then stages of basic or bottleneck blocks."""

from collections.abc import Sequence
from functools import partial
from typing import final

from torch import Tensor, nn

from distill_run.models.features import INPUT, stage_points
from distill_run.models.layers import (
    Pool,
    check_blocks,
    conv_norm,
    conv_norm_relu,
    init_convolutions,
    stages_of_blocks,
)
from distill_run.rules import FLAG, WIDTHS, whole

EXPANSION = 4  # a bottleneck gives this many times the channels of its 3x3 convolution


@final
class ResNet(nn.Module):
    """Stages of residual blocks: images (N, C, H, W) to logits (N, K). All stages but the first halve the map.

    `blocks` and `widths` are the number of blocks and of channels of each stage. With `bottleneck` the width is that of
    the 3x3 convolutions, and a stage gives four times as many channels. A shortcut is a 1x1 convolution where the shape
    changes (option B). Sources: He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2, whose
    networks for CIFAR have 6n + 2 layers; the networks with four times the channels (x4) are from Tian et al.,
    "Contrastive Representation Distillation", 2020.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],  # noqa: ARG002 - any size will do
        num_classes: int,
        stem_width: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        bottleneck: bool,
    ) -> None:
        super().__init__()
        whole(1).check("stem_width", stem_width)
        WIDTHS.check("widths", list(widths))
        check_blocks(blocks, widths)
        FLAG.check("bottleneck", bottleneck)
        block = partial(ResidualBlock, bottleneck=bottleneck)
        ends = [width * EXPANSION if bottleneck else width for width in widths]
        self.stem = nn.Sequential(*conv_norm_relu(in_channels, stem_width, 3))
        self.stages = stages_of_blocks(block, stem_width, ends, blocks, first_stride=1)
        self.pool = Pool()
        self.head = nn.Linear(ends[-1], num_classes)
        init_convolutions(self)
        stages = [f"stages.{place}" for place in range(len(blocks))]
        preact = [f"stages.{place}.{count - 1}.activation{INPUT}" for place, count in enumerate(blocks)]
        points = stage_points(stages, preact)
        self.feature_points = {"stem": "stem", **points, "unpooled": stages[-1], "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions plus a shortcut, then a ReLU: (N, C, H, W) to (N, out_channels, H / stride, W / stride).

    A bottleneck has a 3x3 convolution of fewer channels between two 1x1 convolutions instead.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        width = out_channels // EXPANSION if bottleneck else out_channels
        if bottleneck:
            first = [*conv_norm_relu(in_channels, width, 1), *conv_norm_relu(width, width, 3, stride=stride)]
        else:
            first = conv_norm_relu(in_channels, width, 3, stride=stride)
        self.residual = nn.Sequential(*first, *conv_norm(width, out_channels, 1 if bottleneck else 3))
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        result: Tensor = self.activation(self.residual(maps) + self.shortcut(maps))
        return result


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    is_same = stride == 1 and in_channels == out_channels
    return nn.Identity() if is_same else nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride=stride))
