"""Parts that the convolutional families share: convolutions with batch norm, stages of blocks, initial weights."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from distill_run.errors import user_error
from distill_run.rules import WIDTHS, Rule

Layer = TypeVar("Layer", bound=nn.Module)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution and a batch norm. With a stride of 1 the map keeps its height and width."""
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=bias
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution, a batch norm and a ReLU; see `conv_norm`."""
    return [*conv_norm(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias), nn.ReLU()]


def check_blocks(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Raise RejectedValueError unless `blocks` has a number of at least 1 for each of the `widths`."""
    rule = Rule(
        lambda v: WIDTHS.accepts(v) and len(v) == len(widths), f"{len(widths)} numbers, one for each stage of `widths`"
    )
    rule.check("blocks", list(blocks))


def stages_of_blocks(
    block: Callable[..., nn.Module], stem_width: int, widths: Sequence[int], blocks: Sequence[int], *, first_stride: int
) -> nn.Sequential:
    """A stage for each of `widths`, of as many blocks as `blocks` says.

    `block(in_channels, out_channels, stride=...)` makes a block. The first block of a stage changes the channels and
    halves the map; in the first stage its stride is `first_stride`.
    """
    stages = nn.Sequential()
    for place, (before, after) in enumerate(pairwise([stem_width, *widths])):
        first = block(before, after, stride=first_stride if place == 0 else 2)
        others = [block(after, after, stride=1) for _ in range(blocks[place] - 1)]
        stages.append(nn.Sequential(first, *others))
    return stages


def init_convolutions(network: nn.Module) -> None:
    """Draw the kernels from a normal distribution with the variance 2 / fan-out, and set the biases to 0.

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Pool(nn.Module):
    """The mean of each channel over the map: (N, C, H, W) to (N, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        return maps.mean((2, 3))


def last_layer(architecture: nn.Module, kind: type[Layer]) -> tuple[str, Layer] | None:
    """The path of the last layer of a kind, and the layer itself; None if there is none."""
    found = [(path, module) for path, module in architecture.named_modules() if isinstance(module, kind)]
    return found[-1] if found else None


def last_linear(architecture: nn.Module, key: str) -> tuple[str, nn.Linear]:
    """The path of the last linear layer, and the layer itself; raises UserError if there is none."""
    found = last_layer(architecture, nn.Linear)
    if found is None:
        raise user_error(f"{key} has no linear layer that decides", "choose another architecture")
    return found
