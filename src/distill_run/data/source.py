"""What a source of images gives: the images and targets of each split, and the names of the classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from distill_run.data.packing import Packed, pack
from distill_run.data.photo_list import PhotoList

EVERYTHING = slice(None)


@dataclass(frozen=True)
class ImageShape:
    """What a network takes: channels, (height, width) in pixels, and the number of classes that it tells apart."""

    in_channels: int
    image_size: tuple[int, int]
    num_classes: int


class ImageFacts(Protocol):
    """What a network must know of the images that it is made for: a feed knows it, and so does a network for them."""

    @property
    def shape(self) -> ImageShape:
        """Their channels and size, and the number of their classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of their classes."""

    @property
    def crop_ratio(self) -> float:
        """The share of a photograph's centre that is measured on."""


class ImageSet(Protocol):
    """Images with their targets, wherever the images lie: in memory or in files."""

    def __len__(self) -> int:
        """How many images there are."""

    @property
    def targets(self) -> Tensor:
        """The class (N,) of each image, on the device that trains."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of every image."""

    def name(self, index: int) -> str:
        """What people call an image: the path of its file, or its index where it has none."""

    def chunks(self, size: int, part: slice = EVERYTHING) -> Iterator[Tensor]:
        """All images in their order, at most `size` at a time, as float32 in 0..1 on the device that trains.

        Or a part of these chunks.
        """

    def image(self, index: int) -> Tensor:
        """One image, uint8 (C, H, W), on the CPU."""


class MovableSet(ImageSet, Protocol):
    """An image set that can be served on another device."""

    def to(self, device: torch.device) -> "MovableSet":
        """The same images, served on that device."""


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) of uint8 and targets (N,) of int64, in memory: an ImageSet.

    `paths` are those of the images' files (N,); empty where the images come from no files of their own.
    """

    images: Tensor
    targets: Tensor
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 of shape (N, C, H, W), not {self.images.dtype} of {tuple(self.images.shape)}"
            )
        if self.targets.dtype != torch.int64 or self.targets.shape != self.images.shape[:1]:
            raise ValueError(
                f"targets must be int64 of shape ({len(self.images)},), "
                f"not {self.targets.dtype} of {tuple(self.targets.shape)}"
            )
        if self.paths and len(self.paths) != len(self.images):
            raise ValueError(f"paths must be {len(self.images)}, one for each image, not {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """See ImageSet."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def name(self, index: int) -> str:
        """See ImageSet."""
        return self.paths[index] if self.paths else str(index)

    @cached_property
    def packed(self) -> Packed:
        """The images packed for rendering; made on first use, then shared by everything that renders this split."""
        return pack(self.images)

    def chunks(self, size: int, part: slice = EVERYTHING) -> Iterator[Tensor]:
        """See ImageSet."""
        for chunk in torch.split(self.images, size)[part]:
            yield chunk.float() / 255

    def image(self, index: int) -> Tensor:
        """See ImageSet."""
        return self.images[index].cpu()

    def select(self, indices: Tensor) -> "Split":
        """The samples at `indices` (M,), in their order."""
        paths = tuple(self.paths[index] for index in indices.tolist()) if self.paths else ()
        return Split(self.images[indices], self.targets[indices], paths)

    def to(self, device: torch.device) -> "Split":
        """The same split on another device."""
        return Split(self.images.to(device), self.targets.to(device), self.paths)


@dataclass(frozen=True)
class Source:
    """A dataset in memory as it comes, with a validation split and a test split only if it brings them.

    `notes` are sentences for the user, such as how many files were skipped and why. `entries` are the kinds and names
    of what the source keeps in the store.
    """

    train: Split
    val: Split | None
    test: Split | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PhotoSource:
    """A dataset of photographs that are read later; otherwise as a Source."""

    train: PhotoList
    val: PhotoList | None
    test: PhotoList | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
