"""Lack of memory, of the computer or of a GPU: how libraries raise it, and what the user is told. No torch here."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from distill_run.errors import user_error
from distill_run.units import quantity

# What the RuntimeErrors of torch say where its allocators, CUDA's, MPS's, cuBLAS, cuDNN or C++ find no memory.
SIGNS = re.compile("out of memory|not enough memory|can't allocate memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
UNMAPPED = "failed to map segment from shared object"  # the ImportError where a library's code finds no room
WANTED = re.compile(r"allocate ([\d.]+) (bytes|[KMGT]i?B)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, NumPy or torch says that memory does not suffice."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        return str(error).endswith(UNMAPPED)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and SIGNS.search(str(error)) is not None)


@contextmanager
def told_of_no_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a lack of memory into a UserError: `what` does not fit, and the keys that make it smaller."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise user_error(f"{what} does not fit into memory{_wanted(error)}", remedy) from error


def _wanted(error: BaseException) -> str:
    """How much memory was asked for last, where the error says it."""
    found = WANTED.search(str(error))
    if found is None:
        return ""
    size = f"{quantity(float(found[1]))}B" if found[2] == "bytes" else f"{found[1]} {found[2]}"
    return f": {size} more could not be had"


def smaller_images(shape: tuple[int, int, int]) -> str:
    """A remedy where the number of images at a time is fixed, for images of that shape (C, H, W)."""
    side = max(shape[1:])
    return f"make the images smaller, as in dataset.image_size={max(side // 2, 1)}, or choose a smaller network"
