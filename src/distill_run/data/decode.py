"""From image files to one tensor."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from distill_run.errors import Mistake, UserError, first_line, user_error
from distill_run.listener import Listener, working

MODES = {1: "L", 3: "RGB"}  # number of channels: what Pillow calls it
MOST_SHOWN = 5
LARGEST_ADVISED = 224  # pixels a side; what most published networks were trained with

Pixels = NDArray[np.uint8]


def decode(paths: Sequence[Path], image_size: int | None, channels: int, listener: Listener) -> Tensor:
    """Decode all files to uint8 (N, C, H, W): to squares of `image_size`, or as they are if all have one size.

    Raises UserError that names the files that cannot be read, or the sizes that differ.
    """
    decoded: list[Pixels | Mistake] = []
    with (
        working(listener, f"reading {len(paths):,} images", len(paths)) as advance,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow decodes without the interpreter lock
    ):
        for result in pool.map(lambda path: _decode_one(path, image_size, channels), paths):
            decoded.append(result)
            advance(len(decoded))
    if damaged := [result for result in decoded if isinstance(result, Mistake)]:
        rest = len(damaged) - MOST_SHOWN
        more = [Mistake(f"and {rest} more files that cannot be read", "mend or remove them")] if rest > 0 else []
        raise UserError([*damaged[:MOST_SHOWN], *more])
    pixels = [result for result in decoded if not isinstance(result, Mistake)]
    _check_one_size(pixels)
    decoded.clear()
    images = np.empty((len(pixels), channels, *pixels[0].shape[:2]), dtype=np.uint8)
    while pixels:  # each is freed once it is copied: both forms at once may not fit into memory
        last = pixels.pop()
        images[len(pixels)] = last.transpose(2, 0, 1)
    return torch.from_numpy(images)


def shape_of_first(paths: Sequence[Path], image_size: int | None, channels: int) -> tuple[int, int, int] | None:
    """The shape (C, H, W) that the first image will have, from its header; None where the file has none."""
    if image_size is not None:
        return channels, image_size, image_size
    try:
        with Image.open(paths[0]) as file:
            return channels, file.height, file.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # `decode` says what is wrong with it


def _decode_one(path: Path, image_size: int | None, channels: int) -> Pixels | Mistake:
    """Pixels (H, W, C), or the reason why there are none."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert(MODES[channels])
            if image_size is not None and image.size != (image_size, image_size):
                image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
            return np.asarray(image).reshape(image.height, image.width, channels)
    except UnidentifiedImageError:
        reason = "it is empty" if path.stat().st_size == 0 else "Pillow does not recognise it as an image"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = first_line(error)
    return Mistake(f"{path} cannot be read: {reason}", "mend or remove the file")


def _check_one_size(images: Sequence[Pixels]) -> None:
    sizes = Counter(image.shape[:2] for image in images)
    if len(sizes) > 1:
        common = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(3))
        side = min(*sizes.most_common(1)[0][0], LARGEST_ADVISED)
        raise user_error(
            f"the images have {len(sizes)} sizes (height x width): {common}",
            f"write dataset.source.image_size={side} to bring them to one",
        )
