"""The size of the images that photographs become: the user's, the teacher's, or one that suits the photographs."""

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from distill_run.config.schema import DatasetSettings
from distill_run.data.decode import REDUCTIONS, CentreCrop, Form, Whole, header_size
from distill_run.data.photo_list import PhotoList
from distill_run.data.window import RandomResizedCrop

SIZES = (32, 48, 64, 96)  # pixels a side that are chosen from; a laptop trains on no larger ones in minutes
LARGEST_AS_IT_IS = 256  # pixels of the longer side
NUM_HEADERS = 500  # photographs whose sizes are looked at


class PublishedCrop(NamedTuple):
    """The images that a pretrained teacher was published with: `image_size` in pixels, and the share of the centre."""

    teacher: str
    image_size: tuple[int, int]
    crop_ratio: float


@dataclass(frozen=True)
class Framing:
    """What photographs become: images of `image_size` (height, width), for which `crop_ratio` of the centre is kept.

    Views are made from photographs in `train_form`, which have about `mean_pixels` pixels.
    """

    image_size: tuple[int, int]
    crop_ratio: float
    train_form: Form
    mean_pixels: float

    @property
    def evaluation_form(self) -> CentreCrop:
        """The form of the images that are measured on."""
        return CentreCrop(self.image_size, self.crop_ratio)


@dataclass(frozen=True)
class SizeChoice:
    """The size of the images, the share of the centre that they keep, and what to say about both.

    `found` are the heights and widths of some of the photographs.
    """

    image_size: tuple[int, int]
    crop_ratio: float
    notes: tuple[str, ...]
    found: tuple[tuple[int, int], ...]

    @property
    def is_resized(self) -> bool:
        """Whether photographs are brought to another size."""
        return any(size != self.image_size for size in self.found)

    def framing(self, window: RandomResizedCrop | None) -> Framing:
        """What photographs become where training cuts this window out of them; None: their centre."""
        form: Form = CentreCrop(self.image_size, self.crop_ratio)
        if window is not None:
            side = window.shorter_side
            form = Whole(math.ceil(min(self.image_size) * 8 / 7) if side is None else side)
        pixels = [_pixels(size, form) for size in self.found] or [float(math.prod(self.image_size))]
        return Framing(self.image_size, self.crop_ratio, form, fmean(pixels))


def choose_size(photos: PhotoList, settings: DatasetSettings, published: PublishedCrop | None) -> SizeChoice:
    """The size of the images that photographs become, from the headers of some of them where it is left open."""
    found = _some_sizes(photos)
    image_size, notes = _image_size(found, settings.image_size, published)
    ratio = settings.crop_ratio
    if ratio is None:
        ratio = published.crop_ratio if published else 1.0
        if published and ratio < 1:
            notes.append(f"the centre, {ratio:g} of the sides, is measured on, as for {published.teacher}")
    return SizeChoice(image_size, ratio, tuple(notes), tuple(found))


def _some_sizes(photos: PhotoList) -> list[tuple[int, int]]:
    """Height and width of photographs, evenly spread over the list; damaged ones are left out."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, NUM_HEADERS).astype(int))
    found = []
    for index in chosen.tolist():
        try:
            size = header_size(photos.read(index))
        except OSError:  # named when all photographs are read
            continue
        found += [] if size is None else [size]
    return found


def _image_size(
    found: list[tuple[int, int]], wanted: int | None, published: PublishedCrop | None
) -> tuple[tuple[int, int], list[str]]:
    """The size of the images, and what to say about it."""
    if wanted is not None:
        return (wanted, wanted), []
    if published is not None:
        height, width = published.image_size
        return published.image_size, [f"images: {height}x{width}, the size that {published.teacher} was trained with"]
    if not found:
        return (SIZES[0], SIZES[0]), []
    if len(set(found)) == 1 and max(found[0]) <= LARGEST_AS_IT_IS:
        return found[0], []
    middle = median(min(size) for size in found)
    side = max((size for size in SIZES if size <= middle), default=SIZES[0])
    smallest, largest = min(found, key=math.prod), max(found, key=math.prod)
    sizes = f"{smallest[1]}x{smallest[0]} to {largest[1]}x{largest[0]} pixels"
    more = "; dataset.image_size=224 shows more detail and takes longer" if side == SIZES[-1] else ""
    return (side, side), [f"images: {side}x{side}, from photographs of {sizes}{more}"]


def _pixels(size: tuple[int, int], form: Form) -> float:
    """How many pixels a photograph of this size has in a form."""
    if isinstance(form, CentreCrop):
        return math.prod(form.image_size)
    reduction = next((n for n in REDUCTIONS if form.has_enough((size[0] / n, size[1] / n))), 1)
    return math.prod(size) / reduction**2
