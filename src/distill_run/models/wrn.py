"""Wide residual networks: batch norm and ReLU before each convolution, more channels instead of more layers."""

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from distill_run.models.layers import Pool, conv_norm_relu, init_convolutions
from distill_run.rules import BELOW_ONE, Rule, whole

DEPTH = Rule(lambda v: whole(10).accepts(v) and v % 6 == 4, "6 x blocks of a stage + 4, as in 16, 22, 28, 34 or 40")


@final
class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, `widen` times as wide as a residual network's: (N, C, H, W) to (N, K).

    A stage gives the sum of its last block, which the next batch norm and ReLU have not seen yet. Source: Zagoruyko
    and Komodakis, "Wide Residual Networks", 2016, table 1.
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
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.stem = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.stages = nn.Sequential()
        for place, (before, after) in enumerate(pairwise(widths)):
            first = PreactivationBlock(before, after, stride=1 if place == 0 else 2, dropout=dropout)
            others = (PreactivationBlock(after, after, stride=1, dropout=dropout) for _ in range(num_blocks - 1))
            self.stages.append(nn.Sequential(first, *others))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.activation = nn.ReLU()
        self.pool = Pool()
        self.head = nn.Linear(widths[-1], num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.head.bias)
        self.feature_points = {
            "stem": "stem",
            **{f"stage{place + 1}": f"stages.{place}" for place in range(3)},
            # The batch norm that sees a stage's sums next.
            **{f"stage{place}_preact": f"stages.{place}.0.norm" for place in (1, 2)},
            "stage3_preact": "norm",
            "unpooled": "activation",
            "pooled": "pool",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        maps = self.stages(self.stem(images))
        logits: Tensor = self.head(self.pool(self.activation(self.norm(maps))))
        return logits


class PreactivationBlock(nn.Module):
    """Norm and ReLU, then two 3x3 convolutions; where the shape changes the shortcut sees the activation, too."""

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
