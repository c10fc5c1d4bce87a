"""Augmentations: the steps from a stored image to a view of it, one component each."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_run.data.boxes import boxes
from distill_run.data.draws import Draws
from distill_run.rules import FLAG, whole


class ViewStep:
    """Something that the views of `dataset.augment` consist of."""

    @property
    def does_nothing(self) -> bool:
        """Whether the step can be left out."""
        return False


class Augmentation(ViewStep, ABC):
    """A step of a view: a pure function of each sample's image and of what is drawn for that sample.

    `moves_pixels` is true for a step that only moves or blackens pixels. Such a step may be given packed images:
    integers (N, words, H, W), one for all channels of a pixel, which makes it fast. Any other step is given float32
    (N, C, H, W) in 0..1.
    """

    moves_pixels: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """The changed images, in the shape and the type of those given; all randomness comes from `draw`."""


@final
class Crop(Augmentation):
    """A window of the image's size, cut at random out of the image with `padding` black pixels on each side."""

    moves_pixels = True

    def __init__(self, *, padding: int) -> None:
        whole(0).check("padding", padding)
        self.padding = padding

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return self.padding == 0

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        num, channels, height, width = images.shape
        top, left = draw(2 * self.padding + 1), draw(2 * self.padding + 1)
        padded = F.pad(images, (self.padding,) * 4).contiguous()
        # Each row of a window is `width` neighbours in memory. Where it starts, (N, C, H):
        rows = torch.arange(num * channels, device=images.device).view(num, channels, 1) * padded.shape[2]
        rows = rows + top.view(-1, 1, 1) + torch.arange(height, device=images.device)
        starts = rows * padded.shape[3] + left.view(-1, 1, 1)
        every_row = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
        return every_row.index_select(0, starts.flatten()).view(num, channels, height, width)


@final
class Flip(Augmentation):
    """The mirror image, left to right, half of the time."""

    moves_pixels = True

    def __init__(self, *, enabled: bool) -> None:
        FLAG.check("enabled", enabled)
        self.enabled = enabled

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return not self.enabled

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        both = torch.cat([images, images.flip(3)])
        first = torch.arange(len(images), device=images.device)
        return both.index_select(0, first + len(images) * draw(2))  # faster than torch.where


@final
class Cutout(Augmentation):
    """A black square with a side of `size` pixels around a random centre; it may reach over the border.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    moves_pixels = True

    def __init__(self, *, size: int) -> None:
        whole(0).check("size", size)
        self.size = size

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return self.size == 0

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        height, width = images.shape[2:]
        rows, columns = draw(height), draw(width)
        sides = torch.full_like(rows, self.size)
        return images.masked_fill(boxes(rows, columns, sides, sides, (height, width)), 0)
