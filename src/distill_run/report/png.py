"""PNG images: their bytes, their files, and their form inside a page."""

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image

LEVEL = 3  # of compression: takes a third of the default's time; the file is little larger
UP = 2  # PNG's filter that stores each row as its difference from the row above


def png_of(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    if image.mode == "RGB":
        return _rgb_png(np.asarray(image))
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=LEVEL)
    return file.getvalue()


def _rgb_png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) of uint8 as a PNG; Pillow tries five filters on each row, which takes three times as long."""
    height, width, channels = pixels.shape
    rows = np.empty((height, 1 + channels * width), np.uint8)
    flat = pixels.reshape(height, channels * width)
    rows[:, 0] = UP
    rows[:, 1:] = flat
    rows[1:, 1:] -= flat[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, nothing unusual
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), LEVEL)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_uri(png: bytes) -> str:
    """The PNG in a data URI: an image that a page holds itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
