"""The window of a view: which part of a photograph is cut out at random and resized to the image's size."""

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distill_run.data.augment import ViewStep
from distill_run.data.draws import Draws, stream
from distill_run.rules import Rule, is_number, optional, whole

NUM_TRIES = 10
AUTO = "auto"
AUTO_SCALE = [0.35, 1.0]
SHARES = Rule(
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(is_number, v)) and 0 < v[0] <= v[1] <= 1,
    "[least,most], shares of the image's area above 0 and at most 1",
)
SCALE = Rule(
    lambda v: v == AUTO or SHARES.accepts(v),
    "[least,most], shares of the photograph's area above 0 and at most 1, auto or null",
)
RATIO = Rule(
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(is_number, v)) and 0 < v[0] <= v[1],
    "[least,most], proportions of the sides, above 0",
)


@final
class RandomResizedCrop(ViewStep):
    """A window with a share of the photograph's area in `scale` and proportions in `ratio`, both drawn for each sample.

    The share is uniform, the logarithm of the proportions too; where ten windows in turn do not fit into the
    photograph, its centre is taken. With a scale of None there is no window; `settle_window` decides "auto". Large
    photographs are first reduced to a half, a quarter or an eighth while their shorter side keeps `shorter_side`
    pixels; None: 8/7 of the image's side.
    Source: Szegedy et al., "Going Deeper with Convolutions", 2015, section 6; as torchvision's RandomResizedCrop.
    """

    def __init__(self, *, scale: list[float] | str | None, ratio: list[float], shorter_side: int | None) -> None:
        if scale is not None:
            SCALE.check("scale", scale)
        RATIO.check("ratio", ratio)
        optional(whole(1)).check("shorter_side", shorter_side)
        self.scale = scale
        self.ratio = ratio
        self.shorter_side = shorter_side

    @property
    def does_nothing(self) -> bool:
        """See ViewStep."""
        return self.scale is None

    def boxes(self, indices: Tensor, sizes: NDArray[np.int64], seed: int, view: int) -> NDArray[np.float64]:
        """Windows (N, 4) as left, top, right, bottom in pixels, in photographs of heights and widths `sizes` (N, 2).

        They are a pure function of (seed, view, sample); all is on the CPU, wherever training runs.
        """
        assert isinstance(self.scale, list)
        drawn = Draws(indices, stream("window", seed, view)).uniform(NUM_TRIES + 1, 2).double().numpy()
        tries, place = drawn[:, :NUM_TRIES], drawn[:, NUM_TRIES]
        areas = sizes.prod(1, keepdims=True) * between(tries[:, :, 0], *self.scale)
        ratios = np.exp(between(tries[:, :, 1], *map(math.log, self.ratio)))
        wide, high = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
        fits = (wide >= 1) & (high >= 1) & (wide <= sizes[:, 1:]) & (high <= sizes[:, :1])
        rows, first = np.arange(len(sizes)), fits.argmax(1)
        height, width = sizes[:, 0].astype(float), sizes[:, 1].astype(float)
        found = fits.any(1)
        whole_width = np.minimum(width, np.rint(height * self.ratio[1]))
        whole_height = np.minimum(height, np.rint(width / self.ratio[0]))
        wide = np.where(found, wide[rows, first], whole_width)
        high = np.where(found, high[rows, first], whole_height)
        left = np.where(found, np.floor(place[:, 0] * (width - wide + 1)), np.floor((width - wide) / 2))
        top = np.where(found, np.floor(place[:, 1] * (height - high + 1)), np.floor((height - high) / 2))
        return np.stack([left, top, left + wide, top + high], axis=1)


def settle_window(nodes: Mapping[str, Any], *, is_resized: bool) -> tuple[dict[str, Any], list[str]]:
    """`dataset.augment` with a window of which "auto" became a scale or none, and a sentence on it.

    Photographs that are resized anyway get a window instead of a crop; images that are used as they are get none.
    """
    settled = dict(nodes)
    for name, node in nodes.items():
        if node.get("scale") == AUTO and node["_target_"] == f"{__name__}.{RandomResizedCrop.__name__}":
            settled[name] = {**node, "scale": AUTO_SCALE if is_resized else None}
            if not is_resized:
                return settled, []
            if "crop" in nodes:
                settled["crop"] = {**nodes["crop"], "padding": 0}
            least, most = AUTO_SCALE
            return settled, [
                f"augmentation: windows of {least:.0%} to {most:.0%} of a photograph instead of crop "
                f"(dataset.augment.{name}.scale)"
            ]
    return settled, []


def between(shares: NDArray[np.float64], least: float, most: float) -> NDArray[np.float64]:
    """Numbers from `least` to `most`, from shares of the way between them."""
    return least + shares * (most - least)
