"""RandomErasing: a rectangle of an image, of random size and proportions, gets one value."""

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.boxes import boxes
from distill_run.data.draws import Draws
from distill_run.data.sending import send
from distill_run.data.window import NUM_TRIES, RATIO, SHARES, between
from distill_run.rules import FRACTION


@final
class RandomErasing(Augmentation):
    """A rectangle of a share of the image's area in `scale`, with height by width in `ratio`, is filled with `value`.

    That happens with a `probability`. The share is uniform, and so is the logarithm of the proportions; the rectangle
    lies within the image. Where ten in turn are too large for it, nothing is erased.
    Source: Zhong et al., "Random Erasing Data Augmentation", 2017; as torchvision's RandomErasing.
    """

    def __init__(self, *, probability: float, scale: list[float], ratio: list[float], value: float) -> None:
        FRACTION.check("probability", probability)
        SHARES.check("scale", scale)
        RATIO.check("ratio", ratio)
        FRACTION.check("value", value)
        self.probability = probability
        self.scale = scale
        self.ratio = ratio
        self.value = value

    @property
    def does_nothing(self) -> bool:
        """See Augmentation."""
        return self.probability == 0

    def __call__(self, images: Tensor, draw: Draws) -> Tensor:
        """See Augmentation."""
        image_size = (images.shape[2], images.shape[3])
        drawn = draw.uniform_on_cpu(2 * NUM_TRIES + 3).double().numpy()
        sides = torch.from_numpy(self._sides(drawn[:, : 2 * NUM_TRIES], image_size))
        sides[torch.from_numpy(drawn[:, -3] >= self.probability)] = 0
        free = torch.tensor(image_size) - sides + 1
        first = (torch.from_numpy(drawn[:, -2:]) * free).long()
        rows, columns, heights, widths = send(torch.cat([first + sides // 2, sides], dim=1), images.device).T
        return images.masked_fill(boxes(rows, columns, heights, widths, image_size), self.value)

    def _sides(self, drawn: NDArray[np.float64], image_size: tuple[int, int]) -> NDArray[np.int64]:
        """Height and width (N, 2) of the first rectangle that is smaller than the image; 0 where there is none."""
        areas = math.prod(image_size) * between(drawn[:, :NUM_TRIES], *self.scale)
        ratios = np.exp(between(drawn[:, NUM_TRIES:], *map(math.log, self.ratio)))
        sides = np.rint(np.sqrt(np.stack([areas * ratios, areas / ratios], axis=2))).astype(np.int64)
        fits = (sides[:, :, 0] < image_size[0]) & (sides[:, :, 1] < image_size[1])
        chosen = sides[np.arange(len(sides)), fits.argmax(1)]
        return np.where(fits.any(1, keepdims=True), chosen, 0)
