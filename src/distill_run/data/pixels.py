"""What the numbers in an image file mean: grey or colour in 8 bits, seen on white."""

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

# What people may not expect of an image.
TRANSPARENT = "with transparent parts, which become white"
FRAMES = "with several frames, of which the first is read"
DEEP = "of 16 bits"
DARK = "of 16 bits without a number above 4,095, where white is 65,535: they become nearly black"

WHITE = 65535  # in 16 bits
DARKEST = 16  # of 255, which is 4,095 of 65,535: the white of 12 bits
KEY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}  # a PNG's transparent grey has few bits, Pillow's pixels have 8
BAND = 1024  # rows of an image that are put on white at a time
SEVERAL_FRAMES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")  # the others hold one picture in several sizes


def to_mode(file: ImageFile, mode: str) -> tuple[Image.Image, list[str]]:
    """An image in 8 bits and in mode L or RGB, and the remarks above that are right for it.

    16 bits become the nearest of 256 levels where they are grey, and their upper 8 bits in colour. ICC profiles are not
    applied. Raises ValueError for numbers of which nobody knows which one is white, and whatever Pillow raises.
    """
    if file.mode == "F" or (file.mode == "I" and file.format not in ("PNG", "PPM")):  # in these two, WHITE is white
        numbers = "floating-point numbers" if file.mode == "F" else "numbers of 32 bits"
        raise ValueError(f"its pixels are {numbers}, and nobody knows which one is white: save it with 8 or 16 bits")
    image, remarks = _of_16_bits(file) if file.mode.startswith("I") else _of_8_bits(file, mode)
    if _has_frames(file):
        remarks.append(FRAMES)
    return image if image.mode == mode else image.convert(mode), remarks


def _has_frames(file: ImageFile) -> bool:
    try:
        return file.format in SEVERAL_FRAMES and bool(getattr(file, "is_animated", False))
    except Exception:  # whatever Pillow raises at a damaged second frame: the first may be sound
        return False


def _of_16_bits(file: ImageFile) -> tuple[Image.Image, list[str]]:
    """A grey image; that of a TIFF may have 12 bits, and its white may be 0."""
    white = 2 ** file.tag_v2[BITSPERSAMPLE][0] - 1 if isinstance(file, TiffImageFile) else WHITE
    levels = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    if isinstance(file, TiffImageFile) and file.tag_v2.get(PHOTOMETRIC_INTERPRETATION, 0) == 0:
        levels = levels[::-1]
    numbers = np.asarray(file).clip(0, white)
    pixels = levels[numbers]
    remarks = _depth(int(pixels.max())) if white == WHITE else []
    key = file.info.get("transparency")
    if isinstance(key, int) and (numbers == key).any():
        pixels[numbers == key] = 255
        remarks.append(TRANSPARENT)
    return Image.fromarray(pixels), remarks


def _of_8_bits(file: ImageFile, mode: str) -> tuple[Image.Image, list[str]]:
    """An image in any mode that Pillow brings to 8 bits itself."""
    rawmode = str(file.tile[0][3]) if file.tile else ""  # as it lies in the file: what is read has no tiles any more
    key = file.info.get("transparency")
    if isinstance(key, int) and rawmode in KEY_SCALES:
        file.info["transparency"] = key * KEY_SCALES[rawmode]
    elif isinstance(key, tuple) and ";16" in rawmode:
        file.info["transparency"] = tuple(part >> 8 for part in key)
    file.load()  # only then are the modes of some formats known
    if not file.has_transparency_data:
        image, remarks = file if file.mode == mode else file.convert(mode), list[str]()
    else:
        image, remarks = _on_white(file, mode)
    if ";16" in rawmode:
        remarks += _depth(int(np.asarray(image).max()))
    return image, remarks


def _on_white(file: ImageFile, mode: str) -> tuple[Image.Image, list[str]]:
    layers = file if file.mode == "RGBA" else file.convert("RGBA")
    if layers.getchannel("A").getextrema()[0] == 255:
        return layers.convert(mode), []
    result = Image.new(mode, layers.size)
    for top in range(0, layers.height, BAND):  # the copies of a whole large image would take gigabytes
        band = layers.crop((0, top, layers.width, min(top + BAND, layers.height)))
        white = Image.new("RGBA", band.size, "white")
        result.paste(Image.alpha_composite(white, band).convert(mode), (0, top))
    return result, [TRANSPARENT]


def _depth(most: int) -> list[str]:
    """The remarks on an image of 16 bits whose largest number becomes `most` of 255."""
    return [DEEP, DARK] if most <= DARKEST else [DEEP]
