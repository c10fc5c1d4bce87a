"""Batch norm folded into the convolutions before it: the same function of a frozen network for less work."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold_batch_norm(network: ModuleT) -> ModuleT:
    """A copy of a network in eval mode, in which a Conv2d that a BatchNorm2d follows in a Sequential has taken it in.

    In eval mode batch norm is an affine map of each channel, so the outputs are equal but for rounding.
    """
    assert not network.training
    folded = copy.deepcopy(network)
    for module in folded.modules():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold_neighbours(module)
    return folded.eval()


def _fold_neighbours(layers: nn.Sequential) -> None:
    for (name, convolution), (next_name, norm) in pairwise(list(layers.named_children())):
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.running_mean is not None:  # else it measures each batch, and is no fixed map
            setattr(layers, name, fuse_conv_bn_eval(convolution, norm))
            setattr(layers, next_name, nn.Identity())
