"""Your own images: ROOT/<class>/*; or ROOT/train/<class>/* and, if they are there, ROOT/val and ROOT/test alike."""

import difflib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from distill_run.data.labels import SPLITS, nearest, some
from distill_run.data.listing import given_folder, list_images, skipped_notes, visible_folders, why_skipped
from distill_run.data.photo_list import FileReader, PhotoList
from distill_run.data.source import PhotoSource
from distill_run.errors import Mistake, UserError, user_error
from distill_run.listener import Listener, working
from distill_run.rules import one_of

LONG_NAMES = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}


@dataclass(frozen=True)
class Listing:
    """The images of one split, by their paths from ROOT on, their classes, and how many files are skipped, by why."""

    names: list[str]
    targets: list[int]
    skipped: Counter[str]


def load(*, root: str | None, channels: int, listener: Listener) -> PhotoSource:
    """The photographs under `root`, in 1 (grey) or 3 (colour) channels; they are not read yet.

    The classes are the folders of ROOT/train, or else of ROOT, in alphabetical order. Raises UserError for whatever
    would lose data without notice: a missing folder, a class that train does not have. Files that have no image's
    extension are counted in the notes.
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
    """The folder of each split, and a note for each folder that is not read.

    Where `root` holds the class folders themselves, it is the folder of train.
    """
    holds = "holds a folder of images for each class, or train/ and test/ with such folders"
    folder = given_folder(root, holds)
    there = [child.name for child in visible_folders(folder)]
    if not set(there) & set(SPLITS) and any(_holds_images(folder / name) for name in there):
        return {"train": folder}, []
    others = [name for name in there if name not in SPLITS]
    for name in SPLITS:
        near = [other for other in others if _is_misspelt(other, name)]
        if name not in there and (near or name == "train"):
            remedy = f"make {folder / name}/<class>/ with images"
            if near:
                remedy = f"rename {folder / near[0]} to {name}"
            elif any(_holds_images(folder / other) for other in others):
                remedy = f"move the folders of the classes into {folder / name}"
            raise user_error(f"dataset.root={root} has no folder {name} (it has {', '.join(there) or 'none'})", remedy)
    notes = [f"{folder / name} is not read as a split: it is none of {', '.join(SPLITS)}" for name in others]
    return {name: folder / name for name in SPLITS if name in there}, notes


def _is_misspelt(found: str, name: str) -> bool:
    """Whether a folder is meant to be that of a split: training, tset, Val."""
    return found.lower() in LONG_NAMES[name] or bool(difflib.get_close_matches(name, [found.lower()], cutoff=0.75))


def _holds_images(folder: Path) -> bool:
    return any(why_skipped(path.name) is None for path in folder.iterdir() if path.is_file())


def _class_names(train: Path) -> list[str]:
    classes = [child.name for child in visible_folders(train)]
    if len(classes) < 2:
        raise user_error(
            f"{train} has fewer than two class folders", f"make one folder for each class, as in {train}/cat"
        )
    return classes


def _list(split: str, folder: Path, classes: Sequence[str], top: Path, advance: Callable[[], None]) -> Listing:
    """The files of a split; raises UserError for classes that train does not have, and if there is no image."""
    _check_classes(folder, classes)
    listing = Listing([], [], Counter(map(_reason, (path for path in folder.iterdir() if path.is_file()))))
    for target, name in enumerate(classes):
        images, skipped = list_images(folder / name) if (folder / name).is_dir() else ([], Counter[str]())
        if not images and split == "train":
            raise user_error(f"{folder / name} holds no image", "put images there, or remove the folder")
        listing.names.extend(os.path.relpath(path, top) for path in images)
        listing.targets.extend([target] * len(images))
        listing.skipped.update(skipped)
        advance()
    if not listing.names:
        raise user_error(f"{folder} holds no image", "put images into its class folders")
    return listing


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raise UserError if a split has no class of train, or a class that train does not have."""
    found = [child.name for child in visible_folders(folder)]
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


def _reason(path: Path) -> str:
    """Why a file outside the class folders is not read."""
    return why_skipped(path.name) or f"{path.suffix} outside the class folders"
