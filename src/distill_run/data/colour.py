"""Colours of images, float32 (N, C, H, W) in 0..1, each changed by a factor of its own: ColorJitter and its parts.

A result has the same bits in a batch of any size. Hence sums are made of integers, as the order in which floats are
added depends on how many images are summed at once, and products are added in two steps, never fused.
"""

from itertools import permutations
from typing import final

import torch
from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.draws import Draws
from distill_run.data.sending import send
from distill_run.rules import NOT_NEGATIVE, Rule, is_number

GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue: ITU-R BT.601, as torchvision rounds them
HUE = Rule(lambda v: is_number(v) and 0 <= v <= 0.5, "a number from 0 to 0.5")
_PARTS_OF_ONE = 2**24  # a float32 of 0..1 is hardly changed as a whole number of these
_NUM_STEPS = 4
_ORDERS = list(permutations(range(_NUM_STEPS)))


@final
class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, each changed at random, in an order that is drawn for each sample.

    The factors lie in 1 - x..1 + x, but not below 0; the hue is turned by a share of the circle in -hue..hue.
    As torchvision's ColorJitter. Saturation and hue of grey images stay as they are.
    """

    def __init__(self, *, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            NOT_NEGATIVE.check(name, value)
        HUE.check("hue", hue)
        self.ranges = [(max(0.0, 1.0 - most), 1.0 + most) for most in (brightness, contrast, saturation)]
        self.ranges.append((-hue, hue))

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return all(least == most for least, most in self.ranges)

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        order = torch.tensor(_ORDERS)[draw.on_cpu(len(_ORDERS))]
        shares = draw.uniform(_NUM_STEPS)
        changed = images.clone()
        for turn in order.unbind(1):
            for number, (step, (least, most)) in enumerate(zip(_STEPS, self.ranges, strict=True)):
                rows = (turn == number).nonzero().squeeze(1)
                if least < most and len(rows):
                    places = send(rows, images.device)
                    factors = least + (most - least) * shares[places, number]
                    changed[places] = step(changed[places], factors)
        return changed


def brighten(images: Tensor, factors: Tensor) -> Tensor:
    """Images whose values are multiplied by the factors (N,)."""
    return (images * by_sample(factors, images)).clamp_(0, 1)


def change_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Images whose distances from their mean grey are multiplied by the factors (N,)."""
    parts = (_grey(images) * _PARTS_OF_ONE).round_().long()
    means = parts.sum((1, 2, 3)).float() / (_PARTS_OF_ONE * parts[0].numel())
    return _away_from(means.view(-1, 1, 1, 1), images, factors)


def saturate(images: Tensor, factors: Tensor) -> Tensor:
    """Colour images whose distances from grey are multiplied by the factors (N,); others stay as they are."""
    return _away_from(_grey(images), images, factors) if images.shape[1] == len(GREY) else images


def turn_hue(images: Tensor, shares: Tensor) -> Tensor:
    """Colour images whose hues are turned by shares (N,) of the colour circle; others stay as they are."""
    if images.shape[1] != len(GREY):
        return images
    red, green, blue = images.unbind(1)
    least, most = images.aminmax(dim=1)
    chroma = most - least
    divisor = torch.where(chroma == 0, 1.0, chroma)  # the hue of grey pixels does not matter
    after_green = torch.where(most == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    sextant = torch.where(most == red, (green - blue) / divisor, after_green)  # -1..5
    turned = sextant + 6 * by_sample(shares, images).squeeze(1)
    channels = []
    for offset in (5, 3, 1):  # of red, green, blue, which lose their chroma in other sextants
        place = (turned + offset).remainder(6)
        channels.append(most - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(channels, dim=1)


def _away_from(grey: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Images whose distances from `grey` are multiplied by the factors (N,)."""
    factors = by_sample(factors, images)
    return (images * factors + grey * (1 - factors)).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Grey values (N, 1, H, W): the weighted mean of red, green and blue, the mean of other channels."""
    num_channels = images.shape[1]
    weights = GREY if num_channels == len(GREY) else [1 / num_channels] * num_channels
    grey = images[:, :1] * weights[0]
    for channel in range(1, num_channels):
        grey = grey + images[:, channel : channel + 1] * weights[channel]
    return grey


def by_sample(factors: Tensor, images: Tensor) -> Tensor:
    """Numbers (N,) in the images' type and on their device, as (N, 1, 1, 1)."""
    return send(factors.to(images.dtype), images.device).view(-1, 1, 1, 1)


_STEPS = (brighten, change_contrast, saturate, turn_hue)
