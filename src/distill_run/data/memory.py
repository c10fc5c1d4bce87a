"""How much memory images may take."""

import math
from pathlib import Path

LARGE_SHARE = 0.5  # of the free memory; packed for augmentation, the training images take as much again
UNKNOWN_LIMIT = 4e9  # bytes, where the system does not say how much is free


def memory_limit(gigabytes: float | None) -> float:
    """The bytes that images may take: as the user says, or half of what is free."""
    if gigabytes is not None:
        return gigabytes * 1e9
    free = free_memory()
    return UNKNOWN_LIMIT if free is None else LARGE_SHARE * free


def free_memory() -> int | None:
    """The bytes of memory that this process may still take; None where the system does not say (it is not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return int(min(1024 * kilobytes[0], _limit_of_container())) if kilobytes else None


def _limit_of_container() -> float:
    """The bytes that a control group (version 2) allows, infinite where there is no limit."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # ValueError: the file says "max"
        return math.inf
