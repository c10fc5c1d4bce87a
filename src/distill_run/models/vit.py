"""A small vision transformer."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from distill_run.errors import RejectedValueError
from distill_run.models.features import stage_points
from distill_run.models.layers import Pool
from distill_run.rules import BELOW_ONE, WIDTHS, whole


@final
class VisionTransformer(nn.Module):
    """Patches as tokens, pre-norm transformer blocks, and the mean of all tokens: (N, C, H, W) to logits (N, K).

    A patch of `patch_size` x `patch_size` pixels becomes a token of `width` numbers, and its learned position is added.
    `blocks` says how many blocks each stage has. The stages are alike; they are there so that features can be read
    after each of them, as maps (N, width, H / patch_size, W / patch_size), without an activation. `unpooled` is read
    after the last norm. Both parts of a block end with `dropout`. Raises RejectedValueError if the patch size does not
    divide the sides of the images, or if the number of heads does not divide the width. Source: Dosovitskiy et al., "An
    Image is Worth 16x16 Words", 2021, section 3.1, with the mean of the tokens instead of a class token.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        patch_size: int,
        width: int,
        blocks: Sequence[int],
        heads: int,
        mlp_factor: int,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = {"patch_size": patch_size, "width": width, "heads": heads, "mlp_factor": mlp_factor}
        for name, size in sizes.items():
            whole(1).check(name, size)
        WIDTHS.check("blocks", list(blocks))
        BELOW_ONE.check("dropout", dropout)
        if any(side % patch_size for side in image_size):
            sides = "x".join(map(str, image_size))
            raise RejectedValueError(
                "patch_size", patch_size, f"a divisor of the sides of the images, which are {sides}"
            )
        if width % heads:
            raise RejectedValueError("heads", heads, f"a divisor of width={width}")
        self.stem = Patches(in_channels, width, patch_size, (image_size[0] // patch_size, image_size[1] // patch_size))
        self.stages = nn.Sequential(*(Stage(count, width, heads, mlp_factor, dropout) for count in blocks))
        self.norm = MapNorm(width)
        self.pool = Pool()
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        points = stage_points([f"stages.{place}" for place in range(len(blocks))])
        self.feature_points = {"stem": "stem", **points, "unpooled": "norm", "pooled": "pool"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.pool(self.norm(self.stages(self.stem(images)))))
        return logits


class Patches(nn.Module):
    """Images (N, C, H, W) to maps (N, width, *grid): a vector for each patch, plus its learned position."""

    def __init__(self, in_channels: int, width: int, patch_size: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.positions = nn.Parameter(0.02 * torch.randn(width, *grid))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        maps: Tensor = self.projection(images) + self.positions
        return maps


class Stage(nn.Module):
    """Transformer blocks that see each pixel of a map as a token: maps (N, C, H, W) to maps of the same shape."""

    def __init__(self, num_blocks: int, width: int, heads: int, mlp_factor: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_factor, dropout) for _ in range(num_blocks)))

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        tokens: Tensor = self.blocks(maps.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(maps.shape)


class Block(nn.Module):
    """Attention, then two linear layers with a GELU; each of the two reads normalised tokens (N, L, C) and is added."""

    def __init__(self, width: int, heads: int, mlp_factor: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads), nn.Dropout(dropout))
        self.mlp = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, mlp_factor * width), nn.GELU()),
            *(nn.Linear(mlp_factor * width, width), nn.Dropout(dropout)),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens to tokens of the same shape."""
        tokens = tokens + self.attention(tokens)
        output: Tensor = tokens + self.mlp(tokens)
        return output


class Attention(nn.Module):
    """Self-attention with several heads: tokens (N, L, C) to tokens of the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        projected = self.queries_keys_values(tokens).unflatten(2, (3, self.heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # each (N, heads, L, C / heads)
        mixed = scaled_dot_product_attention(queries, keys, values)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class MapNorm(nn.Module):
    """Layer norm over the channels of each pixel: maps (N, C, H, W) to maps of the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        normed: Tensor = self.norm(maps.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
