"""A hidden folder in which files are made and checked, before they get their names: a killed program leaves no more."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".export."


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A new folder in `output`, which is made if need be; it is removed at the end, as are those of killed programs."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(f"{PREFIX}*"):
        if not _is_running(left.name.removeprefix(PREFIX)):
            shutil.rmtree(left, ignore_errors=True)
    folder = output / f"{PREFIX}{os.getpid()}"
    try:
        folder.mkdir()
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


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True
