"""Which files of a folder are images, and why the others are not read."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distill_run.data.formats import extensions
from distill_run.errors import user_error
from distill_run.units import counted, printable

# What macOS, Windows, Linux and network disks put beside people's files: thumbnails, snapshots, what was deleted.
SYSTEM_FOLDERS = (
    *("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"),
    *("@eaDir", "@Recycle", "@Recently-Snapshot", "@tmp", "#recycle", "#snapshot"),
)


class Left(NamedTuple):
    """A kind of thing in a folder (file, folder or link), and why it is not read."""

    what: str
    why: str


class Entries(NamedTuple):
    """What a folder holds: the names of folders and of files, sorted, and how much is not read, by why."""

    folders: list[str]
    files: list[str]
    skipped: Counter[Left]


def read_folder(folder: str | Path) -> Entries:
    """What a folder holds. Links are followed; one that leads nowhere is a file if it has the name of an image.

    Hidden files, such as the ._ files of macOS, and hidden folders, such as .ipynb_checkpoints, are not read. Raises
    UserError for a folder that cannot be read: what is in it would be lost.
    """
    entries = Entries([], [], Counter())
    try:
        with os.scandir(folder) as found:
            for entry in found:
                _add(entry, entries)
    except OSError as error:
        place = printable(str(folder))
        raise user_error(
            f"{place} cannot be read: {error.strerror}", f"make it readable, as in chmod u+rx {place}; or move it away"
        ) from error
    return Entries(sorted(entries.folders), sorted(entries.files), entries.skipped)


def list_images(folder: Path) -> tuple[list[str], Counter[Left]]:
    """The paths of all images in a folder and its subfolders, sorted, and how much else there is, by why.

    A folder that several links lead to is read once; a link to a folder above is not followed.
    """
    images, skipped = [], Counter[Left]()
    above = {os.path.realpath(parent) for parent in folder.absolute().parents}
    for path in _walk(str(folder), above, skipped):
        if (left := why_skipped(path)) is None:
            images.append(path)
        else:
            skipped[left] += 1
    return sorted(images), skipped


def why_skipped(name: str) -> Left | None:
    """Why a file of this name is not read; None for an image."""
    return why_not_read(os.path.splitext(name)[1])  # noqa: PTH122  # a Path takes longer than all the rest


def why_not_read(suffix: str) -> Left | None:
    """Why a file with this extension, such as .txt, is not read; None for that of an image."""
    if suffix.lower() in extensions():
        return None
    return Left("file", f"{printable(suffix)} is not read as an image" if suffix else "without an extension")


def skipped_notes(where: str, skipped: Counter[Left]) -> list[str]:
    """A sentence for each reason why something is not read."""
    return [f"{where}: {counted(number, what)} skipped, {why}" for (what, why), number in skipped.items() if number]


def tells_empty(place: object, skipped: Counter[Left]) -> str:
    """A sentence on a place without an image, with what it has instead."""
    return "; ".join([f"{place} holds no image", *skipped_notes("there", skipped)])


def given_folder(root: str | None, holds: str) -> Path:
    """The folder `dataset.root`; raises UserError, which says what it `holds`, where there is none."""
    if root is None:
        raise user_error("dataset.root is not set", f"write dataset.root=DIR, where DIR {holds}")
    if not Path(root).is_dir():
        raise user_error(f"dataset.root={root} is not a folder", f"give the folder that {holds}")
    return Path(root)


def _add(entry: os.DirEntry[str], entries: Entries) -> None:
    """Put an entry of a folder where it belongs."""
    kind = _kind(entry)
    if entry.name.startswith("."):
        entries.skipped[Left(kind, "hidden")] += 1
    elif kind == "folder" and entry.name in SYSTEM_FOLDERS:
        entries.skipped[Left(kind, f"{entry.name} of the system")] += 1
    elif kind == "folder":
        entries.folders.append(entry.name)
    elif kind == "file" or (kind == "link" and why_skipped(entry.name) is None):  # reading it says what is wrong
        entries.files.append(entry.name)
    else:
        why = f"{printable(entry.name)} leads nowhere" if kind == "link" else "no regular file"
        entries.skipped[Left(kind, why)] += 1


def _kind(entry: os.DirEntry[str]) -> str:
    """A folder, a file, a link that leads nowhere, or a pipe or device."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:  # it leads nowhere, to itself, or into a folder that may not be read
        return "link"
    return "device"


def _walk(folder: str, known: set[str], skipped: Counter[Left]) -> Iterator[str]:
    """The paths of all files, except in folders that are `known` by their real paths."""
    real = os.path.realpath(folder)
    if real in known:
        skipped[Left("link", "to a folder above it, or to one that is read anyway")] += 1
        return
    known.add(real)
    entries, start = read_folder(folder), os.path.join(folder, "")  # noqa: PTH118
    skipped.update(entries.skipped)
    yield from (start + name for name in entries.files)
    paths = [start + name for name in entries.folders]
    for path in sorted(paths, key=lambda path: (os.path.islink(path), path)):  # noqa: PTH114  # links come last
        yield from _walk(path, known, skipped)
