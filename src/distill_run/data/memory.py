"""Whether images fit into memory, before they are read."""

import math
from pathlib import Path

from distill_run.errors import user_error
from distill_run.units import quantity

LARGE_SHARE = 0.5  # of the free memory; packed for augmentation, the training images take as much again
ADVISED_SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512)  # pixels a side


def free_memory() -> int | None:
    """The bytes of memory that this process may still take; None where the system does not say (it is not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return int(min(1024 * kilobytes[0], _limit_of_container())) if kilobytes else None


def check_memory(num_images: int, shape: tuple[int, int, int], free: int) -> str | None:
    """A warning where uint8 images of `shape` (C, H, W) take more than half of `free` bytes of memory.

    Raises UserError where they take more than all of it.
    """
    channels, height, width = shape
    needed = num_images * math.prod(shape)
    if needed <= LARGE_SHARE * free:
        return None
    fitting = [size for size in ADVISED_SIZES if num_images * channels * size**2 <= LARGE_SHARE * free]
    what = f"{num_images:,} images of {height}x{width} take {quantity(needed)}B of memory, {quantity(free)}B are free"
    remedy = f"write dataset.source.image_size={max(fitting, default=ADVISED_SIZES[0])}"
    if needed > free:
        raise user_error(what, f"{remedy} to make them smaller")
    return f"{what}; {remedy} to need less"


def _limit_of_container() -> float:
    """The bytes that a control group (version 2) allows, infinite where there is no limit."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # ValueError: the file says "max"
        return math.inf
