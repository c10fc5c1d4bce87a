"""The operations of TrivialAugment and RandAugment, on float32 images (N, C, H, W) in 0..1, each with a magnitude.

The magnitudes (N,) are float64 on the CPU. A result has the same bits in a batch of any size; see colour.py. Moving
operations take the nearest pixel, and black from outside the image. Where it lies is computed in integers, so that any
device takes the same one.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_run.data.colour import brighten, by_sample, change_contrast, saturate
from distill_run.data.sending import send

WHITE = 255  # operations that count or compare values do so in these steps, in which images are stored
_ONE = 2**20  # in the fixed-point numbers that say where a pixel comes from


def apply_operations(images: Tensor, names: Tensor, magnitudes: Tensor) -> Tensor:
    """Images after the operation that each has drawn; `names` (N,) are positions in OPERATIONS, on the CPU."""
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        rows = (names == number).nonzero().squeeze(1)
        if len(rows):
            places = send(rows, images.device)
            changed[places] = operation(images[places], magnitudes[rows])
    return changed


def _identity(images: Tensor, _: Tensor) -> Tensor:
    return images


def _shear_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Each row is moved to the left by its distance from the top times the magnitude."""
    ones, zeros = torch.ones_like(magnitudes), torch.zeros_like(magnitudes)
    return _take(images, (ones, magnitudes, zeros), (zeros, ones, zeros))


def _shear_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Each column is moved up by its distance from the left times the magnitude."""
    ones, zeros = torch.ones_like(magnitudes), torch.zeros_like(magnitudes)
    return _take(images, (ones, zeros, zeros), (magnitudes, ones, zeros))


def _translate_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Moved to the right by whole pixels; the rest of the magnitude is left out."""
    ones, zeros = torch.ones_like(magnitudes), torch.zeros_like(magnitudes)
    return _take(images, (ones, zeros, -magnitudes.trunc()), (zeros, ones, zeros))


def _translate_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Moved down by whole pixels; the rest of the magnitude is left out."""
    ones, zeros = torch.ones_like(magnitudes), torch.zeros_like(magnitudes)
    return _take(images, (ones, zeros, zeros), (zeros, ones, -magnitudes.trunc()))


def _rotate(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Turned around the centre, by degrees, against the clock."""
    cosine, sine = magnitudes.deg2rad().cos(), magnitudes.deg2rad().sin()
    y, x = (side / 2 for side in images.shape[2:])
    return _take(images, (cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y))


def _take(images: Tensor, column: tuple[Tensor, Tensor, Tensor], row: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Images whose pixel (x, y) is the one at a x + b y + c of the given images, black where that is outside.

    `column` and `row` are the a, b and c (N,) of its two coordinates. Pixel 0 reaches from coordinate 0 to 1.
    """
    height, width = images.shape[2:]
    x, y = _source(column, images), _source(row, images)
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    places = torch.where(is_inside, y * width + x, height * width)
    with_black = F.pad(images.flatten(2), (0, 1))
    return with_black.gather(2, places.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)).view_as(images)


def _source(coefficients: tuple[Tensor, Tensor, Tensor], images: Tensor) -> Tensor:
    """The whole part (N, H, W) of one coordinate of where each pixel comes from."""
    a, b, c = (send((number * _ONE).round().long(), images.device).view(-1, 1, 1) for number in coefficients)
    height, width = images.shape[2:]
    x = 2 * torch.arange(width, device=images.device) + 1  # the middle of each pixel, in halves
    y = 2 * torch.arange(height, device=images.device).unsqueeze(1) + 1
    return torch.div(a * x + b * y + 2 * c, 2 * _ONE, rounding_mode="floor")


def _brightness(images: Tensor, magnitudes: Tensor) -> Tensor:
    return brighten(images, 1 + magnitudes)


def _color(images: Tensor, magnitudes: Tensor) -> Tensor:
    return saturate(images, 1 + magnitudes)


def _contrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    return change_contrast(images, 1 + magnitudes)


def _sharpness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """A magnitude of -1 blurs the image, above 0 sharpens it; the border stays as it is."""
    if min(images.shape[2:]) <= 2:
        return images
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    squares = columns[:, :, :, :-2] + columns[:, :, :, 1:-1] + columns[:, :, :, 2:]
    inner = images[:, :, 1:-1, 1:-1]
    blurred = (squares + 4 * inner) / 13
    sharpened = images.clone()
    sharpened[:, :, 1:-1, 1:-1] = (inner + (inner - blurred) * by_sample(magnitudes, images)).clamp_(0, 1)
    return sharpened


def _posterize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Only the highest bits of each value are kept, as many as the magnitude says."""
    width = by_sample(2 ** (8 - magnitudes), images)
    return (_stored(images) / width).floor_() * width / WHITE


def _solarize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Values from the magnitude on are inverted."""
    threshold = by_sample(WHITE * magnitudes, images)
    return torch.where(_stored(images) >= threshold, 1 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """The darkest value of each channel becomes black, the brightest white."""
    least, most = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(most > least, (images - least) / torch.where(most > least, most - least, 1.0), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """The values of each channel are spread so that each is about as frequent as any other, by Pillow's rule."""
    values = _stored(images).long().flatten(2)
    counts = values.new_zeros(*values.shape[:2], WHITE + 1)
    counts.scatter_add_(2, values, torch.ones_like(values))
    num_brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - num_brightest) // WHITE
    darker = counts.cumsum(2) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp_(max=WHITE)
    table = torch.where(step == 0, torch.arange(WHITE + 1, device=images.device), table)
    return (table.gather(2, values).to(images.dtype) / WHITE).view_as(images)


def _stored(images: Tensor) -> Tensor:
    return (images * WHITE).round_()


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _identity,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
