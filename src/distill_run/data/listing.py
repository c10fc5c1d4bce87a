"""Which files of a folder are images, and why the others are not read."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distill_run.errors import user_error
from distill_run.units import counted

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "j2k", "qoi"),
    )
)


def list_images(folder: Path) -> tuple[list[str], Counter[str]]:
    """The paths of all images in a folder and its subfolders, sorted, and how many other files there are, by reason.

    Links are followed. Hidden files and folders, such as .ipynb_checkpoints or the ._ files of macOS, are not read.
    """
    images, skipped = [], Counter[str]()
    for path in _walk(str(folder), frozenset()):
        reason = why_skipped(path.rpartition(os.sep)[2])
        if reason is None:
            images.append(path)
        else:
            skipped[reason] += 1
    return sorted(images), skipped


def why_skipped(name: str) -> str | None:
    """Why a file of this name is not read; None for an image."""
    suffix = os.path.splitext(name)[1]  # noqa: PTH122  # a Path takes longer than all the rest
    if name.startswith("."):
        return "hidden"
    return None if suffix.lower() in EXTENSIONS else f"{suffix or 'no extension'} is no image"


def skipped_notes(split: str, skipped: Counter[str]) -> list[str]:
    """A sentence for each reason why files of a split are not read."""
    return [f"{split}: {counted(number, 'file')} skipped, {reason}" for reason, number in skipped.items() if number]


def given_folder(root: str | None, holds: str) -> Path:
    """The folder `dataset.root`; raises UserError, which says what it `holds`, where there is none."""
    if root is None:
        raise user_error("dataset.root is not set", f"write dataset.root=DIR, where DIR {holds}")
    if not Path(root).is_dir():
        raise user_error(f"dataset.root={root} is not a folder", f"give the folder that {holds}")
    return Path(root)


def visible_folders(folder: Path) -> list[Path]:
    """The subfolders of a folder that are not hidden, by name."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _walk(folder: str, parents: frozenset[str]) -> Iterator[str]:
    """The paths of all files; a link to a folder that contains it is not followed. A hidden folder counts as a file."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                yield entry.path
            else:
                yield from _walk(entry.path, parents | {real})
