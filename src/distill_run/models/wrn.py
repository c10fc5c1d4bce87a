"""Wide residual networks: batch norm and ReLU before each convolution, more channels instead of more layers."""

from functools import partial
from typing import final

from torch import Tensor, nn

from distill_run.models.features import stage_points
from distill_run.models.layers import Pool, conv_norm_relu, init_convolutions, stages_of_blocks
from distill_run.rules import BELOW_ONE, Rule, whole

DEPTH = Rule(lambda v: whole(10).accepts(v) and v % 6 == 4, "6 x blocks of a stage + 4, as in 16, 22, 28, 34 or 40")

STEM_WIDTH = 16


@final
class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 residual blocks: images (N, C, H, W) to logits (N, K).

    They are `widen` times as wide as those of a residual network. A stage gives the sum of its last block, before the
    batch norm and the ReLU that follow. Source: Zagoruyko and Komodakis, "Wide Residual Networks", 2016, table 1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],  # noqa: ARG002 - any size will do
        num_classes: int,
        depth: int,
        widen: int,
        dropout: float,
    ) -> None:
        super().__init__()
        DEPTH.check("depth", depth)
        whole(1).check("widen", widen)
        BELOW_ONE.check("dropout", dropout)
        num_blocks = (depth - 4) // 6
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.stem = nn.Conv2d(in_channels, STEM_WIDTH, kernel_size=3, padding=1, bias=False)
        block = partial(PreactivationBlock, dropout=dropout)
        self.stages = stages_of_blocks(block, STEM_WIDTH, widths, [num_blocks] * len(widths), first_stride=1)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.activation = nn.ReLU()
        self.pool = Pool()
        self.head = nn.Linear(widths[-1], num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.head.bias)
        # Before the activation: the batch norm that follows a stage.
        points = stage_points(["stages.0", "stages.1", "stages.2"], ["stages.1.0.norm", "stages.2.0.norm", "norm"])
        self.feature_points = {"stem": "stem", **points, "unpooled": "activation", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        maps = self.stages(self.stem(images))
        logits: Tensor = self.head(self.pool(self.activation(self.norm(maps))))
        return logits


class PreactivationBlock(nn.Module):
    """A batch norm and a ReLU, then two 3x3 convolutions plus a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated maps.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.activation = nn.ReLU()
        self.residual = nn.Sequential(
            *conv_norm_relu(in_channels, out_channels, 3, stride=stride),
            *([nn.Dropout(dropout)] if dropout > 0 else []),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        )
        is_same = stride == 1 and in_channels == out_channels
        self.shortcut = None if is_same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H / stride, W / stride)."""
        active = self.activation(self.norm(maps))
        carried = maps if self.shortcut is None else self.shortcut(active)
        result: Tensor = self.residual(active) + carried
        return result
