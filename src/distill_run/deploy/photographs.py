"""Photographs as a network takes them: one of them, or any number, decoded while the network computes."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill_run.data.decode import MODES, CentreCrop, Decoder
from distill_run.data.photo_list import read_file, reason_of
from distill_run.data.source import ImageFacts, ImageSet
from distill_run.errors import user_error

BLOCK = 64  # images that go through a network at once
AHEAD = 2  # blocks that are decoded before they are needed


class Photograph(NamedTuple):
    """An image by the name that people know it by, the path of its file, and its class's index, where it is known."""

    name: str
    target: int | None


class Block(NamedTuple):
    """Some photographs, the images (M, C, H, W) of those that can be read, float32 in 0..1, in the same order.

    `problems` are the reasons why the others cannot be read, by their names; `remarks` are those of data/pixels.py.
    """

    photographs: list[Photograph]
    images: Tensor
    problems: dict[str, str]
    remarks: dict[str, list[str]]


class Read(NamedTuple):
    """The pixels (H, W, C) of a photograph, uint8, and the remarks of data/pixels.py on it."""

    pixels: Tensor
    remarks: list[str]


def read_image(path: str | Path, network: ImageFacts) -> Tensor:
    """A photograph as the network was measured on it: float32 (1, C, H, W) in 0..1.

    It is turned upright, its centre is cut out and resized, in grey or in colour. Raises UserError where the file
    cannot be read, and for a network that takes no photographs.
    """
    decoder = decoder_for(network)
    try:
        pixels, _ = _decode(decoder, str(path))
    except (OSError, ValueError) as error:
        raise user_error(f"{path} cannot be read: {reason_of(error)}", "give the file of an image") from error
    return pixels.permute(2, 0, 1).unsqueeze(0).float() / 255


def decoder_for(network: ImageFacts) -> Decoder:
    """What makes images for a network of photographs; raises UserError for one that takes none."""
    shape = network.shape
    if shape.in_channels not in MODES:
        raise user_error(
            f"the network takes images of {shape.in_channels} channels, photographs have 1 (grey) or 3 (colour)",
            "give a network of photographs; in Python, load_network gives one that takes any tensor",
        )
    return Decoder(shape.in_channels, CentreCrop(shape.image_size, network.crop_ratio))


def read_blocks(photographs: Iterable[Photograph], decoder: Decoder) -> Iterator[Block]:
    """All photographs in their order, whose names are paths; only a few blocks lie in memory at a time.

    Threads decode the next blocks meanwhile: Pillow works without the interpreter lock.
    """
    rest = iter(photographs)
    pool = ThreadPoolExecutor(os.cpu_count())
    ahead: deque[tuple[list[Photograph], list[Future[Read]]]] = deque()
    try:
        while block := list(islice(rest, BLOCK)):
            ahead.append((block, [pool.submit(_decode, decoder, photograph.name) for photograph in block]))
            if len(ahead) > AHEAD:
                yield _gathered(*ahead.popleft())
        while ahead:
            yield _gathered(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def split_blocks(split: ImageSet) -> Iterator[Block]:
    """The images of a split, with their classes."""
    targets, first = split.targets.tolist(), 0
    for images in split.chunks(BLOCK):
        numbers = range(first, first + len(images))
        yield Block([Photograph(split.name(number), targets[number]) for number in numbers], images, {}, {})
        first += len(images)


def _gathered(photographs: list[Photograph], decoded: list[Future[Read]]) -> Block:
    images, problems, remarks = [], {}, {}
    for photograph, future in zip(photographs, decoded, strict=True):
        try:
            pixels, remarks[photograph.name] = future.result()
            images.append(pixels)
        except (OSError, ValueError) as error:
            problems[photograph.name] = reason_of(error)
    together = torch.stack(images).permute(0, 3, 1, 2).contiguous() if images else torch.empty(0)
    return Block(photographs, together.float() / 255, problems, remarks)


def _decode(decoder: Decoder, path: str) -> Read:
    """The pixels (H, W, C), uint8, of a file, and the remarks; raises OSError or ValueError if it cannot be read."""
    image, remarks = decoder.decode(read_file(path))
    pixels = np.array(image).reshape(image.height, image.width, decoder.channels)
    return Read(torch.from_numpy(pixels), remarks)
