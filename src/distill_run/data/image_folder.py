"""Your own images: ROOT/<class>/*; or ROOT/train/<class>/* and, if they are there, ROOT/val and ROOT/test alike."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from distill_run.data.labels import SPLITS, class_folders, nearest, some
from distill_run.data.listing import (
    Left,
    given_folder,
    list_images,
    read_folder,
    skipped_notes,
    tells_empty,
    why_skipped,
)
from distill_run.data.photo_list import FileReader, PhotoList
from distill_run.data.source import PhotoSource
from distill_run.errors import Mistake, UserError, user_error
from distill_run.listener import Listener, working
from distill_run.rules import one_of
from distill_run.units import printable

OTHER_NAMES = {
    "train": ("training",),
    "val": ("valid", "validation", "dev"),
    "test": ("testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Listing:
    """The images of one split, by their paths from ROOT on, their classes, and how much is skipped, by why."""

    names: list[str]
    targets: list[int]
    skipped: Counter[Left]


def load(*, root: str | None, channels: int, listener: Listener) -> PhotoSource:
    """The photographs under `root`, in 1 (grey) or 3 (colour) channels; they are not read yet.

    The classes are the folders of ROOT/train, or else of ROOT, in alphabetical order. Raises UserError for whatever
    would lose data without notice: a missing folder, a class that train does not have. What else is not read is counted
    in the notes.
    """
    folders, notes = _split_folders(root)
    source = list_splits(Path(root or ""), folders, channels, listener)
    return replace(source, notes=(*notes, *source.notes))


def list_splits(top: Path, folders: Mapping[str, Path], channels: int, listener: Listener) -> PhotoSource:
    """The photographs in the class folders below the folder of each split, which lies in `top`."""
    one_of(1, 3).check("channels", channels)
    classes = _class_names(folders["train"])
    listings = {}
    with working(listener, f"listing the files of {top}", len(folders) * len(classes)) as advance:
        done = count(1)
        for name, folder in folders.items():
            listings[name] = _list(name, folder, classes, top, lambda: advance(next(done)))
    splits = {
        name: PhotoList.of_all(FileReader(top, listing.names), listing.targets, channels)
        for name, listing in listings.items()
    }
    notes = (note for name, listing in listings.items() for note in skipped_notes(name, listing.skipped))
    return PhotoSource(splits["train"], splits.get("val"), splits.get("test"), tuple(classes), tuple(notes))


def _split_folders(root: str | None) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and notes on what is not read.

    Where `root` holds the class folders themselves, it is the folder of train.
    """
    holds = "holds a folder of images for each class, or train/ and test/ with such folders"
    folder = given_folder(root, holds)
    there, files, skipped = read_folder(folder)
    if not any(map(_is_split, there)) and any(_holds_images(folder / name) for name in there):
        return {"train": folder}, _notes_beside(folder)
    others = [name for name in there if name not in SPLITS]
    for name in ("train", "test", "val"):  # a folder eval is test, or else val
        near = [other for other in others if _is_misspelt(other, name)]
        if name not in there and (near or name == "train"):
            remedy = f"rename {folder / near[0]} to {name}" if near else _remedy(folder, others)
            has = printable(", ".join(there)) or "none"
            raise user_error(f"dataset.root={root} has no folder {name} (it has {has})", remedy)
    notes = [f"{folder / name} is not read as a split: it is none of {', '.join(SPLITS)}" for name in others]
    notes += skipped_notes(str(folder), skipped + _outside(files))
    return {name: folder / name for name in SPLITS if name in there}, notes


def _remedy(folder: Path, names: Sequence[str]) -> str:
    """What to do about a folder that has folders of these names, but none of train."""
    if any(_holds_images(folder / name) for name in names):
        return f"move the folders of the classes into {folder / 'train'}"
    if _holds_images(folder):
        return f"give the folder that has a folder for each class, such as {folder.absolute().parent}"
    for child in (folder / name for name in names):
        if any(_is_split(name) or _holds_images(child / name) for name in read_folder(child).folders):
            return f"give {child} if it holds train or the classes; if it is a class, move it into {folder / 'train'}"
    return f"make {folder / 'train'}/<class>/ with images"


def _notes_beside(train: Path) -> list[str]:
    """Notes on the other splits where the folder of train is given instead of the one above it."""
    above = train.absolute().parent
    beside = [name for name in SPLITS if name != train.absolute().name and (above / name).is_dir()]
    if train.absolute().name not in SPLITS or not beside:
        return []
    return [f"{above / name} is not read: dataset.root is {train}, not {above}" for name in beside]


def _is_split(name: str) -> bool:
    """Whether a folder has a name that splits have, also in capital letters."""
    return any(name.lower() in (split, *OTHER_NAMES[split]) for split in SPLITS)


def _is_misspelt(found: str, name: str) -> bool:
    """Whether a folder is meant to be that of a split: training, tset, Val."""
    return found.lower() in OTHER_NAMES[name] or bool(difflib.get_close_matches(name, [found.lower()], cutoff=0.75))


def _holds_images(folder: Path) -> bool:
    return any(why_skipped(name) is None for name in read_folder(folder).files)


def _class_names(train: Path) -> list[str]:
    classes = list(class_folders(train))
    if len(classes) < 2:
        raise user_error(
            f"{train} has fewer than two class folders", f"make one folder for each class, as in {train}/cat"
        )
    return classes


def _list(split: str, folder: Path, classes: Sequence[str], top: Path, advance: Callable[[], None]) -> Listing:
    """The files of a split; raises UserError for classes that train does not have, and if there is no image."""
    found, entries = class_folders(folder), read_folder(folder)
    _check_classes(folder, list(found), classes)
    listing = Listing([], [], entries.skipped + _outside(entries.files))
    for target, name in enumerate(classes):
        images, skipped = list_images(found[name]) if name in found else ([], Counter[Left]())
        if not images and split == "train":
            raise user_error(tells_empty(found[name], skipped), "put images there, or remove the folder")
        if images:
            start, place = len(str(found[name])), os.path.relpath(found[name], top)
            listing.names.extend(place + path[start:] for path in images)
        listing.targets.extend([target] * len(images))
        listing.skipped.update(skipped)
        advance()
    if not listing.names:
        raise user_error(tells_empty(folder, listing.skipped), "put images into its class folders")
    return listing


def _check_classes(folder: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    """Raise UserError if a split has no class of train, or a class that train does not have."""
    if not set(found) & set(classes):
        raise user_error(
            f"{folder} shares no class with train: it has {some(found)}, train has {some(classes)}",
            "use the same names of folders in every split",
        )
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise UserError(_unknown_class(folder / name, classes) for name in unknown)


def _unknown_class(folder: Path, classes: Sequence[str]) -> Mistake:
    return Mistake(f"{folder} is a class that train does not have", nearest(folder.name, classes))


def _outside(files: Sequence[str]) -> Counter[Left]:
    """Why files outside the class folders are not read."""
    reasons = (
        why_skipped(name) or Left("file", f"{os.path.splitext(name)[1]} outside the class folders")  # noqa: PTH122
        for name in files
    )
    return Counter(reasons)
