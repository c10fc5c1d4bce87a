"""From the bytes of an image file to its pixels."""

import io
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from distill_run.errors import first_line

# Pillow warns of damaged metadata on the terminal, once for each file: the pixels are what counts here.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MODES = {1: "L", 3: "RGB"}  # number of channels: what Pillow calls it
REDUCTIONS = (8, 4, 2)  # how many times smaller a JPEG can be decoded
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation: what brings the photograph upright
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


class Form(ABC):
    """What becomes of a decoded photograph of any size. All sizes are (height, width) in pixels."""

    @abstractmethod
    def has_enough(self, size: tuple[float, float]) -> bool:
        """Whether a photograph that was reduced to this size still has the pixels that the form needs."""

    @abstractmethod
    def apply(self, image: Image.Image) -> Image.Image:
        """The photograph in this form."""


@final
@dataclass(frozen=True)
class CentreCrop(Form):
    """The centre of a photograph, resized to `image_size`; `crop_ratio` is the share of the sides that it keeps.

    The centre has the proportions of `image_size`. A photograph of that size stays as it is where the ratio is 1.
    """

    image_size: tuple[int, int]
    crop_ratio: float

    def has_enough(self, size: tuple[float, float]) -> bool:
        """See Form."""
        left, top, right, bottom = self.box(size)
        return bottom - top >= self.image_size[0] and right - left >= self.image_size[1]

    def apply(self, image: Image.Image) -> Image.Image:
        """See Form."""
        box = self.box((image.height, image.width))
        if box == (0, 0, *image.size) and (image.height, image.width) == self.image_size:
            return image
        return image.resize(self.image_size[::-1], Image.Resampling.BICUBIC, box=box)

    def box(self, size: tuple[float, float]) -> Box:
        """The centre of a photograph of this size."""
        height, width = size
        scale = min(height / self.image_size[0], width / self.image_size[1]) * self.crop_ratio
        half_height, half_width = scale * self.image_size[0] / 2, scale * self.image_size[1] / 2
        return width / 2 - half_width, height / 2 - half_height, width / 2 + half_width, height / 2 + half_height


@final
@dataclass(frozen=True)
class Whole(Form):
    """The whole photograph, at a half, a quarter or an eighth of its size while its shorter side keeps so many pixels.

    These are the sizes at which a JPEG is decoded several times faster.
    """

    shorter_side: int

    def has_enough(self, size: tuple[float, float]) -> bool:
        """See Form."""
        return min(size) >= self.shorter_side

    def apply(self, image: Image.Image) -> Image.Image:
        """See Form."""
        return image


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to 1 (grey) or 3 (colour) channels, in a form."""

    channels: int
    form: Form

    def decode(self, data: bytes) -> tuple[Image.Image, bool]:
        """The photograph in the form, upright, and whether parts of it were transparent: these become white.

        Raises ValueError that says why the file cannot be read.
        """
        if not data:
            raise ValueError("it is empty")
        try:
            with Image.open(io.BytesIO(data)) as file:
                reduction = self._reduction((file.height, file.width))
                file.draft(None, (file.width // reduction, file.height // reduction))  # for a JPEG; others ignore it
                size = file.size
                turn = _turn(file)
                image, is_transparent = _to_mode(file, MODES[self.channels])
        except UnidentifiedImageError:
            raise ValueError("Pillow does not recognise it as an image") from None
        except Exception as error:  # a damaged file makes Pillow raise anything, struct.error and KeyError among it
            raise ValueError(first_line(error) or type(error).__name__) from error
        if (left := self._reduction((size[1], size[0]))) > 1:
            image = image.reduce(left)
        return self.form.apply(image if turn is None else image.transpose(turn)), is_transparent

    def _reduction(self, size: tuple[int, int]) -> int:
        """How many times smaller a photograph of this size may become."""
        upright = (size, size[::-1])  # the form needs enough pixels whichever way the photograph is turned
        return next(
            (n for n in REDUCTIONS if all(self.form.has_enough((height / n, width / n)) for height, width in upright)),
            1,
        )


def header_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a photograph by its header; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            return file.height, file.width
    except Exception:  # see `Decoder.decode`, which says what is wrong with it
        return None


def _turn(file: Image.Image) -> Image.Transpose | None:
    """What brings a photograph upright; None where it stands upright, or where its EXIF data are damaged."""
    try:
        return TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow raises: the pixels can be used all the same
        return None


def _to_mode(file: Image.Image, mode: str) -> tuple[Image.Image, bool]:
    """An image in 8 bits and another mode, and whether parts of it were transparent."""
    if file.mode == "F" or (file.mode == "I" and file.format != "PNG"):
        raise ValueError(
            f"its pixels are {'32-bit' if file.mode == 'I' else 'floating-point'} numbers, not 8 or 16 bits"
        )
    if file.mode.startswith("I"):
        values = np.asarray(file).astype(np.int64)
        return Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8)).convert(mode), False
    if not file.has_transparency_data:
        file.load()
        return (file if file.mode == mode else file.convert(mode)), False
    layers = file.convert("RGBA")
    least_alpha = int(np.asarray(layers.getchannel("A")).min())
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert(mode), least_alpha < 255
