"""A hidden folder in which files are made and checked before they get their names."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = ".export-"
LOCK = ".lock"


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A new folder in `output`, which is made if need be; it is removed at the end, as are those of killed programs."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f"{PREFIX}*"):
        _remove_unused(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=output))
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # there is something in it now
                output.rmdir()


def publish(path: Path, place: Path) -> None:
    """Rename a finished file or folder to `place`; what is there gives way."""
    if place.is_dir():
        old = path.with_name(f"{path.name}.old")
        place.replace(old)  # a folder cannot be replaced at once; this one goes with the staging folder
    path.replace(place)


def _remove_unused(folder: Path) -> None:
    """Remove the folder of a program that was killed: nobody holds its lock."""
    with suppress(Timeout), FileLock(folder / LOCK, timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
