"""PNG images: their bytes, their files, and their form inside a page."""

import base64
import io
from pathlib import Path

from PIL import Image

from distill_run.files import atomic_path


def png_of(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=3)  # takes a third of the default's time; the file is little larger
    return file.getvalue()


def data_uri(png: bytes) -> str:
    """The PNG in a data URI: an image that a page holds itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write_png(path: Path, png: bytes) -> None:
    """Write the PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)
