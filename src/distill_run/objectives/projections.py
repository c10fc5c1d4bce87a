"""Learned layers that turn the student's features into the shape of the teacher's; only the training needs them."""

from torch import nn

from distill_run.errors import user_error

MapShape = tuple[int, int, int]


def map_shape(network: str, shape: tuple[int, ...]) -> MapShape:
    """The (C, H, W) of one sample's features; a vector (C,) is a map of one pixel. Raises UserError for others."""
    if len(shape) not in (1, 3):
        raise user_error(
            f"the {network}'s features are of shape {shape}, neither a vector nor a map",
            f"choose other points in mode.{network}_points",
        )
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


def regressor(student: MapShape, teacher: MapShape, last_relu: bool) -> nn.Sequential:
    """A layer from the student's map to the teacher's channels and size, then batch norm and, with `last_relu`, a ReLU.

    The layer depends on the sizes of the maps. Where the student's is twice as large, it is a 3x3 convolution with
    stride 2; half as large, a transposed 4x4 convolution; of equal size or less than twice as large, a convolution
    whose kernel gives the teacher's size. For any other pair, it is a pool to the smaller height and width and a 1x1
    convolution. Where one of the maps is a single pixel, the layer has a bias instead of batch norm, which cannot train
    on one image. Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015, section 2.2; the layers are those of
    the comparison in Tian et al., "Contrastive Representation Distillation", 2020.
    """
    has_norm = (1, 1) not in (student[1:], teacher[1:])
    layers = _resizing(student, teacher, bias=not has_norm)
    if has_norm:
        layers.append(nn.BatchNorm2d(teacher[0]))
    if last_relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _resizing(student: MapShape, teacher: MapShape, bias: bool) -> list[nn.Module]:
    before, after = student[0], teacher[0]
    sides = list(zip(student[1:], teacher[1:], strict=True))
    if all(ours == 2 * theirs for ours, theirs in sides):
        return [nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=bias)]
    if all(2 * ours == theirs for ours, theirs in sides):
        return [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=bias)]
    if all(theirs <= ours < 2 * theirs for ours, theirs in sides):
        height, width = (1 + ours - theirs for ours, theirs in sides)
        return [nn.Conv2d(before, after, kernel_size=(height, width), bias=bias)]
    height, width = map(min, sides)
    return [nn.AdaptiveAvgPool2d((height, width)), nn.Conv2d(before, after, kernel_size=1, bias=bias)]
