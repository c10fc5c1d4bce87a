"""ShuffleNets for small images: cheap convolutions in groups of channels, and a shuffle that mixes the groups."""

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from distill_run.models.features import INPUT, stage_points
from distill_run.models.layers import Pool, check_blocks, conv_norm, conv_norm_relu, stages_of_blocks
from distill_run.rules import WIDTHS, whole

STEM_WIDTH = 24


@final
class ShuffleNetV1(nn.Module):
    """A 1x1 stem, and stages that each halve the map: images (N, C, H, W) to logits (N, K).

    Source: Zhang et al., "ShuffleNet", 2018, table 1. The stem is that of Tian et al. ("Contrastive Representation
    Distillation", 2020): it keeps the size of the map, because the images are small.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],  # noqa: ARG002 - any size will do
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        groups: int,
    ) -> None:
        super().__init__()
        WIDTHS.check("widths", list(widths))
        check_blocks(blocks, widths)
        whole(1).check("groups", groups)
        self.stem = nn.Sequential(*conv_norm_relu(in_channels, STEM_WIDTH, 1))
        block = partial(GroupBlock, groups=groups)
        self.stages = stages_of_blocks(block, STEM_WIDTH, widths, blocks, first_stride=2)
        self.pool = Pool()
        self.head = nn.Linear(widths[-1], num_classes)
        points = _points_of_stages(blocks)
        self.feature_points = {"stem": "stem", **points, "unpooled": f"stages.{len(blocks) - 1}", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


class GroupBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions in groups, whose result is added to the input.

    With a stride of 2 the input is pooled, and the result becomes further channels of it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        added = out_channels - in_channels if stride == 2 else out_channels
        middle = added // 4
        first_groups = 1 if in_channels == STEM_WIDTH else groups
        self.residual = nn.Sequential(
            *conv_norm_relu(in_channels, middle, 1, groups=first_groups),
            Shuffle(first_groups),
            *conv_norm_relu(middle, middle, 3, stride=stride, groups=middle),
            *conv_norm(middle, added, 1, groups=groups),
        )
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H / stride, W / stride)."""
        residual = self.residual(maps)
        if self.stride == 2:
            total = torch.cat([residual, avg_pool2d(maps, 3, stride=2, padding=1)], dim=1)
        else:
            total = residual + maps
        result: Tensor = self.activation(total)
        return result


@final
class ShuffleNetV2(nn.Module):
    """A 1x1 stem, stages that each halve the map, a 1x1 convolution: images (N, C, H, W) to logits (N, K).

    Each stage has one block more than `blocks` says: the one that halves the map. Source: Ma et al., "ShuffleNet V2",
    2018, table 5, with the stem of Tian et al. ("Contrastive Representation Distillation", 2020).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],  # noqa: ARG002 - any size will do
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        last_width: int,
    ) -> None:
        super().__init__()
        WIDTHS.check("widths", list(widths))
        check_blocks(blocks, widths)
        whole(1).check("last_width", last_width)
        self.stem = nn.Sequential(*conv_norm_relu(in_channels, STEM_WIDTH, 1))
        lengths = [1 + count for count in blocks]
        self.stages = stages_of_blocks(_down_or_split, STEM_WIDTH, widths, lengths, first_stride=2)
        self.last = nn.Sequential(*conv_norm_relu(widths[-1], last_width, 1))
        self.pool = Pool()
        self.head = nn.Linear(last_width, num_classes)
        self.feature_points = {"stem": "stem", **_points_of_stages(lengths), "unpooled": "last", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.last(self.stages(self.stem(images)))))
        return logits


def _points_of_stages(lengths: Sequence[int]) -> dict[str, str]:
    """The points of stages with that many blocks, after and before the activation of their last block."""
    stages = [f"stages.{place}" for place in range(len(lengths))]
    preact = [f"stages.{place}.{length - 1}.activation{INPUT}" for place, length in enumerate(lengths)]
    return stage_points(stages, preact)


def _down_or_split(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    return DownBlock(in_channels, out_channels) if stride == 2 else SplitBlock(out_channels)


class SplitBlock(nn.Module):
    """One half of the channels stays as it is, the other goes through convolutions; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.residual = nn.Sequential(
            *conv_norm_relu(half, half, 1), *conv_norm(half, half, 3, groups=half), *conv_norm(half, half, 1)
        )
        self.activation = nn.ReLU()  # of both halves; the half that stays was activated before, so it does not change
        self.shuffle = Shuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        passing, changing = maps.chunk(2, dim=1)
        result: Tensor = self.shuffle(self.activation(torch.cat([passing, self.residual(changing)], dim=1)))
        return result


class DownBlock(nn.Module):
    """Two branches of stride 2 over all channels; each gives half of the output channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            *conv_norm(in_channels, in_channels, 3, stride=2, groups=in_channels), *conv_norm(in_channels, half, 1)
        )
        self.right = nn.Sequential(
            *conv_norm_relu(in_channels, half, 1),
            *conv_norm(half, half, 3, stride=2, groups=half),
            *conv_norm(half, half, 1),
        )
        self.activation = nn.ReLU()
        self.shuffle = Shuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H / 2, W / 2)."""
        result: Tensor = self.shuffle(self.activation(torch.cat([self.left(maps), self.right(maps)], dim=1)))
        return result


class Shuffle(nn.Module):
    """Distributes the channels of each group over all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same, in another order of channels."""
        num, channels, height, width = maps.shape
        grouped = maps.reshape(num, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(num, channels, height, width)
