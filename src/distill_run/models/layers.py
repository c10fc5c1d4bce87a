"""What the convolutional families share: convolutions with batch norm, initial weights, the way to the logits."""

from collections.abc import Sequence

from torch import Tensor, nn

from distill_run.errors import user_error
from distill_run.rules import WIDTHS, Rule


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution that keeps the size, but for its stride, and a batch norm."""
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=bias
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """The same with a ReLU."""
    return [*conv_norm(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias), nn.ReLU()]


def check_blocks(blocks: Sequence[int], widths: Sequence[int]) -> None:
    """Raise RejectedValueError unless there is a number of blocks, 1 or more, for each stage of `widths`."""
    rule = Rule(
        lambda v: WIDTHS.accepts(v) and len(v) == len(widths), f"{len(widths)} numbers, one for each stage of `widths`"
    )
    rule.check("blocks", list(blocks))


def init_convolutions(network: nn.Module) -> None:
    """Draw the kernels from a normal distribution of variance 2 / fan-out; biases begin at 0.

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


def last_linear(architecture: nn.Module, key: str) -> tuple[str, nn.Linear]:
    """The path of the last linear layer, and that layer; raises UserError where there is none."""
    found = [(path, module) for path, module in architecture.named_modules() if isinstance(module, nn.Linear)]
    if not found:
        raise user_error(f"{key} has no linear layer that decides", "choose another architecture")
    return found[-1]
