"""VGG for small images, with batch norm: blocks of 3x3 convolutions, and one linear layer."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from distill_run.models.features import INPUT, stage_points
from distill_run.models.layers import Pool, conv_norm_relu, init_convolutions
from distill_run.rules import WIDTHS, Rule

WIDTHS_OF_BLOCKS = (64, 128, 256, 512, 512)
BLOCKS = Rule(lambda v: WIDTHS.accepts(v) and len(v) == 5, "five whole numbers of at least 1, as in [1,1,2,2,2]")


@final
class VGG(nn.Module):
    """Five blocks of convolutions, and one linear layer: images (N, C, H, W) to logits (N, K).

    `blocks` says how many convolutions each block has. The map is halved after the first three blocks, and after the
    fourth if images are at least 64 pixels high; odd sizes are rounded up. The features of a block are read before the
    pool. Source: Simonyan and Zisserman, "Very Deep Convolutional Networks", 2015, table 1, as Tian et al. use it on
    CIFAR ("Contrastive Representation Distillation", 2020).
    """

    def __init__(
        self, *, in_channels: int, image_size: tuple[int, int], num_classes: int, blocks: Sequence[int]
    ) -> None:
        super().__init__()
        BLOCKS.check("blocks", list(blocks))
        self.num_pools = 4 if image_size[0] >= 64 else 3
        self.blocks = nn.ModuleList()
        before = in_channels
        for count, width in zip(blocks, WIDTHS_OF_BLOCKS, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += conv_norm_relu(before, width, 3, bias=True)
                before = width
            self.blocks.append(nn.Sequential(*layers))
        self.halve = nn.MaxPool2d(2, ceil_mode=True)
        self.pool = Pool()
        self.head = nn.Linear(WIDTHS_OF_BLOCKS[-1], num_classes)
        init_convolutions(self)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        stages = range(1, 5)  # block 0 is the stem
        preact = [f"blocks.{place}.{3 * blocks[place] - 1}{INPUT}" for place in stages]
        points = stage_points([f"blocks.{place}" for place in stages], preact)
        self.feature_points = {"stem": "blocks.0", **points, "unpooled": "blocks.4", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        maps = images
        for place, block in enumerate(self.blocks):
            maps = block(maps)
            if place < self.num_pools:
                maps = self.halve(maps)
        logits: Tensor = self.head(self.pool(maps))
        return logits
