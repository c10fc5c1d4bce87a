"""The image formats that are read: their names in Pillow, and the extensions of their files.

Pillow looks at the bytes of a file, whatever its name is, so a stranger's photo.jpg could reach any of its readers.
Those that are left out here run other programs (EPS), have no pixels of their own (HDF5, WMF), or take any bytes for an
image (SPIDER, PCD).
"""

from functools import cache

from PIL import Image

READ = (
    *("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "QOI", "PPM", "PSD", "SGI", "DDS", "BLP"),
    *("ICNS", "ICO", "MSP", "PCX", "XBM", "DIB", "TGA"),  # these are recognised by few bytes, and come last
)


@cache
def formats() -> tuple[str, ...]:
    """The names of the formats that the installed Pillow opens."""
    Image.init()  # loads Pillow's readers, which takes a tenth of a second: not at import
    return tuple(name for name in READ if name in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """The extensions of files in these formats, in lower case, such as .jpg."""
    Image.init()
    return frozenset(extension for extension, name in Image.EXTENSION.items() if name in READ)
