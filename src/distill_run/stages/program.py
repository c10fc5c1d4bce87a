"""Which program computes: part of what every outcome depends on."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from distill_run.build import folder_hash

NUMBERS = ("data", "engine", "losses", "models", "objectives", "stages")  # the rooms whose code decides numbers


@cache
def program_identity() -> str:
    """The version of this program, and the beginning of the sha256 of its code that decides numbers.

    A release never takes an older release's weights for its own. While the code is being changed, its hash does what
    the version does between releases: any change in those rooms counts, even one that leaves every number as it was.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256("".join(folder_hash(package / room) for room in NUMBERS).encode())
    return f"{metadata.version('distill-run')} {digest.hexdigest()[:16]}"
