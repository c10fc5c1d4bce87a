"""Residual networks for small images: a 3x3 stem without a pool, then stages of basic or bottleneck blocks."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from distill_run.models.features import INPUT
from distill_run.models.layers import Pool, check_blocks, conv_norm, conv_norm_relu, init_convolutions
from distill_run.rules import FLAG, WIDTHS, whole

EXPANSION = 4  # of a bottleneck's channels at its end


@final
class ResNet(nn.Module):
    """Stages of residual blocks, of which all but the first halve the map: (N, C, H, W) to (N, K) logits.

    `blocks` says how many each stage has, `widths` of how many channels; with `bottleneck` that is the width of their
    3x3 convolutions, and a fourth of what a stage gives. Shortcuts are 1x1 convolutions where the shape changes
    (option B). Sources: He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2, whose networks
    for CIFAR have 6n + 2 layers; those with four times the channels are Tian et al.'s, "Contrastive Representation
    Distillation", 2020.
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
        self.stages = nn.Sequential()
        for place, (before, after) in enumerate(pairwise([stem_width, *ends])):
            first = block(before, widths[place], after, stride=1 if place == 0 else 2)
            others = (block(after, widths[place], after, stride=1) for _ in range(blocks[place] - 1))
            self.stages.append(nn.Sequential(first, *others))
        self.pool = Pool()
        self.head = nn.Linear(ends[-1], num_classes)
        init_convolutions(self)
        self.feature_points = {"stem": "stem", **self._stage_points(blocks)}

    def _stage_points(self, blocks: Sequence[int]) -> dict[str, str]:
        stages = {f"stage{place + 1}": f"stages.{place}" for place in range(len(blocks))}
        last = {f"stages.{place}": f"stages.{place}.{count - 1}.activation" for place, count in enumerate(blocks)}
        before = {f"{name}_preact": f"{last[place]}{INPUT}" for name, place in stages.items()}
        return {**stages, **before, "unpooled": f"stages.{len(blocks) - 1}", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.stages(self.stem(images))))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a 3x3 one between two of 1x1, around which the input is carried; the last ReLU follows.

    (N, C, H, W) to (N, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
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
