"""Pillow and its libraries print nothing: what is wrong with a file is raised, and told once, with the file's name."""

import ctypes
import logging
import warnings
from contextlib import suppress
from pathlib import Path

import PIL


def quiet_pillow() -> None:
    """Silence what Pillow says of damaged metadata and of large images, a line for each file.

    libtiff prints by itself, and Pillow does not keep it from that; its library lies beside Pillow, as pip installs it.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    pillow = Path(PIL.__file__).parent
    for library in (*pillow.parent.glob("[Pp]illow.libs/libtiff*"), *pillow.glob(".dylibs/libtiff*")):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)
