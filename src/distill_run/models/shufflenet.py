"""ShuffleNets for small images: cheap convolutions in groups of channels, which are shuffled between them."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from distill_run.models.features import INPUT
from distill_run.models.layers import Pool, check_blocks, conv_norm, conv_norm_relu
from distill_run.rules import WIDTHS, whole

STEM_WIDTH = 24


@final
class ShuffleNetV1(nn.Module):
    """A 1x1 stem and three stages, of which each halves the map: (N, C, H, W) to (N, K) logits.

    Source: Zhang et al., "ShuffleNet", 2018, table 1, with the stem of Tian et al. ("Contrastive Representation
    Distillation", 2020), which leaves the map of small images as large as it is.
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
        self.stages = nn.Sequential()
        before = STEM_WIDTH
        for width, count in zip(widths, blocks, strict=True):
            first = GroupBlock(before, width, groups, stride=2)
            self.stages.append(
                nn.Sequential(first, *(GroupBlock(width, width, groups, stride=1) for _ in range(count - 1)))
            )
            before = width
        self.pool = Pool()
        self.head = nn.Linear(before, num_classes)
        last = {place: f"stages.{place}.{count - 1}.activation{INPUT}" for place, count in enumerate(blocks)}
        self.feature_points = {
            "stem": "stem",
            **{f"stage{place + 1}": f"stages.{place}" for place in last},
            **{f"stage{place + 1}_preact": before for place, before in last.items()},
            "unpooled": f"stages.{len(blocks) - 1}",
            "pooled": "pool",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


class GroupBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions in groups; with a stride of 2 the pooled input is joined on instead of added."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, *, stride: int) -> None:
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
    """A 1x1 stem, three stages, of which each halves the map, a 1x1 convolution: (N, C, H, W) to (N, K) logits.

    Source: Ma et al., "ShuffleNet V2", 2018, table 5, with the stem of Tian et al. ("Contrastive Representation
    Distillation", 2020).
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
        self.stages = nn.Sequential()
        before = STEM_WIDTH
        for width, count in zip(widths, blocks, strict=True):
            self.stages.append(nn.Sequential(DownBlock(before, width), *(SplitBlock(width) for _ in range(count))))
            before = width
        self.last = nn.Sequential(*conv_norm_relu(before, last_width, 1))
        self.pool = Pool()
        self.head = nn.Linear(last_width, num_classes)
        last = {place: f"stages.{place}.{count}.activation{INPUT}" for place, count in enumerate(blocks)}
        self.feature_points = {
            "stem": "stem",
            **{f"stage{place + 1}": f"stages.{place}" for place in last},
            **{f"stage{place + 1}_preact": before for place, before in last.items()},
            "unpooled": "last",
            "pooled": "pool",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.last(self.stages(self.stem(images)))))
        return logits


class SplitBlock(nn.Module):
    """Half of the channels pass, the other half go through convolutions; both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.residual = nn.Sequential(
            *conv_norm_relu(half, half, 1), *conv_norm(half, half, 3, groups=half), *conv_norm(half, half, 1)
        )
        self.activation = nn.ReLU()  # of both halves: what passes was activated before, and is not changed
        self.shuffle = Shuffle(2)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        passing, changing = maps.chunk(2, dim=1)
        result: Tensor = self.shuffle(self.activation(torch.cat([passing, self.residual(changing)], dim=1)))
        return result


class DownBlock(nn.Module):
    """All channels go through two branches of stride 2, each of which gives half of the channels."""

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
    """Deal the channels of each group out to all groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same, in another order of channels."""
        num, channels, height, width = maps.shape
        grouped = maps.reshape(num, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(num, channels, height, width)
