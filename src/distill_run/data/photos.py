"""Photographs that can be opened one by one, in the form that they are served from: decoded each time, or kept."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from distill_run.data.decode import Box, CentreCrop, Decoder
from distill_run.data.photo_list import PhotoList, reason_of


class Photos(ABC):
    """Photographs of any size; `sizes` (N, 2) are their heights and widths, `is_kept` says whether memory has them."""

    sizes: NDArray[np.int64]
    channels: int
    is_kept: bool

    @abstractmethod
    def pixels_of(self, index: int) -> NDArray[np.uint8]:
        """One photograph (H, W, C); raises OSError or ValueError where its file cannot be read."""

    def render(self, index: int, box: Box | None, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """A part of a photograph, in whole pixels, or all of it, resized to pixels (H, W, C) of `image_size`.

        By torch, with antialiasing, as torchvision does: for bytes that is several times faster than Pillow.
        """
        pixels = self.pixels_of(index)
        if box is not None:
            left, top, right, bottom = map(round, box)
            pixels = pixels[top:bottom, left:right]
        if pixels.shape[:2] == image_size:
            return pixels
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)  # torch wants memory of its own
        resized = interpolate(image, image_size, mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()


@final
class ReadPhotos(Photos):
    """Photographs that are read from their files and decoded each time."""

    is_kept = False

    def __init__(self, photos: PhotoList, decoder: Decoder, sizes: NDArray[np.int64]) -> None:
        self.photos = photos
        self.decoder = decoder
        self.sizes = sizes
        self.channels = decoder.channels

    def pixels_of(self, index: int) -> NDArray[np.uint8]:
        """See Photos."""
        try:
            image, _ = self.decoder.decode(self.photos.read(index))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.photos.place(index)} cannot be read any more: {reason_of(error)}") from error
        if [image.height, image.width] != self.sizes[index].tolist():  # windows are cut out of that size
            raise ValueError(f"{self.photos.place(index)} has become another image since it was first read")
        return np.asarray(image).reshape(image.height, image.width, self.channels)


@final
class KeptPhotos(Photos):
    """Decoded photographs (H, W, C), one after the other in `pixels`, an array or a file that is mapped into memory."""

    is_kept = True

    def __init__(self, pixels: NDArray[np.uint8], sizes: NDArray[np.int64], channels: int) -> None:
        self.pixels = pixels
        self.sizes = sizes
        self.channels = channels
        self.ends = np.cumsum(sizes.prod(1) * channels)

    def pixels_of(self, index: int) -> NDArray[np.uint8]:
        """See Photos."""
        height, width = self.sizes[index].tolist()
        end = int(self.ends[index])
        return self.pixels[end - height * width * self.channels : end].reshape(height, width, self.channels)

    def as_images(self) -> Tensor:
        """Photographs of one size as images (N, C, H, W) of their own."""
        height, width = self.sizes[0].tolist()
        pixels = self.pixels.reshape(len(self.sizes), height, width, self.channels)
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())  # torch wants memory of its own

    @classmethod
    def of_images(cls, images: Tensor) -> "KeptPhotos":
        """Those of uint8 images (N, C, H, W) in memory."""
        num, channels, height, width = images.shape
        sizes = np.tile(np.array([[height, width]], dtype=np.int64), (num, 1))
        return cls(images.permute(0, 2, 3, 1).contiguous().flatten().numpy(), sizes, channels)


@final
class JoinedPhotos(Photos):
    """The photographs of one set, then those of another."""

    def __init__(self, first: Photos, second: Photos) -> None:
        self.first, self.second = first, second
        self.sizes = np.concatenate([first.sizes, second.sizes])
        self.channels = first.channels
        self.is_kept = first.is_kept and second.is_kept

    def pixels_of(self, index: int) -> NDArray[np.uint8]:
        """See Photos."""
        num = len(self.first.sizes)
        return self.first.pixels_of(index) if index < num else self.second.pixels_of(index - num)


def map_pixels(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, read when they are needed and kept by the system while it has memory."""
    return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)


class Order(NamedTuple):
    """Photographs `indices` (N,) to render, and the box (N, 4) of each; None: their centres."""

    indices: Tensor
    boxes: NDArray[np.float64] | None


def render_all(photos: Photos, order: Order, image_size: tuple[int, int], pool: ThreadPoolExecutor | None) -> Tensor:
    """Images (N, H, W, C) of uint8; a pool of threads renders several at once."""
    images = np.empty((len(order.indices), *image_size, photos.channels), dtype=np.uint8)

    def render(row: int) -> None:
        index = int(order.indices[row])
        images[row] = photos.render(index, _box(photos, order, row, image_size), image_size)

    rows: Sequence[int] = range(len(images))
    for _ in map(render, rows) if pool is None else pool.map(render, rows):
        pass
    return torch.from_numpy(images)


def _box(photos: Photos, order: Order, row: int, image_size: tuple[int, int]) -> Box | None:
    if order.boxes is not None:
        left, top, right, bottom = order.boxes[row].tolist()
        return left, top, right, bottom
    height, width = photos.sizes[order.indices[row]].tolist()
    return None if (height, width) == image_size else CentreCrop(image_size, 1.0).box((height, width))


def make_pool() -> ThreadPoolExecutor:
    """Threads for `render_all`: Pillow decodes and torch resizes without the interpreter lock."""
    return ThreadPoolExecutor(os.cpu_count())
