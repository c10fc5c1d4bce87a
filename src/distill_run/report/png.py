"""PNG images: their bytes, their files, and their form inside a page."""

import base64
import io

from PIL import Image


def png_of(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=3)  # takes a third of the default's time; the file is little larger
    return file.getvalue()


def data_uri(png: bytes) -> str:
    """The PNG in a data URI: an image that a page holds itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
