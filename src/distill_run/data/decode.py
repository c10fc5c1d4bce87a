"""From the bytes of an image file to its pixels."""

import io
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, final

from PIL import ExifTags, Image, UnidentifiedImageError

from distill_run.data.formats import formats
from distill_run.data.pixels import to_mode
from distill_run.data.quiet import quiet_pillow
from distill_run.errors import first_line

quiet_pillow()

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
LARGE = 2**24  # pixels: of images that have more, one is decoded at a time, so that threads cannot fill the memory
LARGE_ONES = Lock()  # Pillow itself refuses an image of more than 179 million pixels
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


class Decoded(NamedTuple):
    """A photograph, and what people may not expect of it, in the words of `pixels`."""

    image: Image.Image
    remarks: list[str]


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to 1 (grey) or 3 (colour) channels, in a form."""

    channels: int
    form: Form

    def decode(self, data: bytes) -> Decoded:
        """The photograph in the form, upright.

        Raises ValueError that says why the file cannot be read, and nothing else.
        """
        if not data:
            raise ValueError("it is empty")
        try:
            return self._decode(data)
        except UnidentifiedImageError:
            raise ValueError("it is no image of a known format") from None
        except Image.DecompressionBombError as error:
            raise ValueError(first_line(error).partition(", could")[0]) from error
        except Exception as error:  # a damaged file makes Pillow raise anything, struct.error and KeyError among it
            raise ValueError(first_line(error)) from error

    def _decode(self, data: bytes) -> Decoded:
        with Image.open(io.BytesIO(data), formats=formats()) as file:
            reduction = self._reduction((file.height, file.width))
            file.draft(None, (file.width // reduction, file.height // reduction))  # for a JPEG; others ignore it
            width, height = file.size
            with LARGE_ONES if width * height > LARGE else nullcontext():
                image, remarks = to_mode(file, MODES[self.channels])
                turn = _turn(file)  # after the pixels: for a PNG, this reads them, too
                if (left := self._reduction((height, width))) > 1:
                    image = image.reduce(left)
                return Decoded(self.form.apply(image if turn is None else image.transpose(turn)), remarks)

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
        with Image.open(io.BytesIO(data), formats=formats()) as file:
            return file.height, file.width
    except Exception:  # see `Decoder.decode`, which says what is wrong with it
        return None


def _turn(file: Image.Image) -> Image.Transpose | None:
    """What brings a photograph upright; None where it stands upright, or where its EXIF data are damaged."""
    try:
        return TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever Pillow raises: the pixels can be used all the same
        return None
