"""Makes a model of torchvision or timm fit the images: their channels, their size, their normalisation."""

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_run.errors import first_line, user_error

# What the forward pass of a model raises for images of a size that it cannot take.
MISFITS = (RuntimeError, ValueError, IndexError, AssertionError)


@dataclass(frozen=True)
class Published:
    """The images that published weights were trained with: (height, width) in pixels, mean and std of each channel.

    `crop_ratio` is the share of a photograph's centre that they were measured on, `num_classes` is how many outputs the
    head of those weights has; 0 where they have no head.
    """

    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float
    num_classes: int


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The path of the first convolution, and the layer itself."""
    return next((path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d))


def adapt_first_convolution(model: nn.Module, in_channels: int, keeps_kernels: bool) -> None:
    """Replace the first convolution of a model by one for `in_channels`.

    With `keeps_kernels`, images whose channels are all equal give the same outputs as before.
    """
    path, old = first_convolution(model)
    new = copy.deepcopy(old)  # it may be a class of the library's own, as one that pads by the size of the images
    new.in_channels = in_channels
    new.weight = nn.Parameter(old.weight.new_empty(old.out_channels, in_channels, *old.kernel_size))
    new.reset_parameters()
    if keeps_kernels:
        with torch.no_grad():
            new.weight.copy_(old.weight.sum(1, keepdim=True) / in_channels)
            if new.bias is not None and old.bias is not None:
                new.bias.copy_(old.bias)
    model.set_submodule(path, new)


def fit_to_images(
    model: nn.Module,
    name: str,
    in_channels: int,
    image_size: tuple[int, int],
    size: tuple[int, int],
    published: Published | None,
) -> nn.Module:
    """Make a model resize its images if it must, give it its weights' normalisation, and try it with one image."""
    if size != image_size:
        model.register_forward_pre_hook(partial(_resize, size))
    if published is not None:
        vars(model)["normalisation"] = (
            for_channels(published.mean, in_channels),
            for_channels(published.std, in_channels),
        )
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_channels, *image_size))
    except MISFITS as error:
        raise user_error(
            f"{name} cannot take images of {size[0]}x{size[1]}: {first_line(error)}",
            "let them be resized to what it takes, as in teacher.input_size=224",
        ) from error
    return model.train()


def for_channels(values: tuple[float, ...], in_channels: int) -> list[float]:
    """A value for each channel; the mean of them all where the images have another number of channels."""
    return list(values) if len(values) == in_channels else [sum(values) / len(values)] * in_channels


def _resize(size: tuple[int, int], model: nn.Module, inputs: tuple[Tensor]) -> Tensor:  # noqa: ARG001
    return interpolate(inputs[0], size, mode="bilinear", antialias=True)
