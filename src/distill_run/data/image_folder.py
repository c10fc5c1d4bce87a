"""Your own images: ROOT/<class>/*; or ROOT/train/<class>/* and, if they are there, ROOT/val and ROOT/test alike."""

import difflib
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_run.data.decode import MOST_SHOWN, decode, shape_of_first
from distill_run.data.memory import check_memory, free_memory
from distill_run.data.source import Source, Split
from distill_run.errors import Mistake, UserError, user_error
from distill_run.listener import Listener
from distill_run.rules import one_of, optional, whole
from distill_run.store import Store, fingerprint_of, read_meta

KIND, FILE = "images", "images.npy"
SPLITS = ("train", "val", "test")
LONG_NAMES = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))


@dataclass(frozen=True)
class Listing:
    """The image files of one split, the class index of each, and the number of other files by suffix."""

    paths: list[Path]
    targets: list[int]
    skipped: Counter[str]


@dataclass(frozen=True)
class DecodedSplit:
    """The decoded images of a listing, a sha256 of images and targets, and the fingerprint of their store entry."""

    split: Split
    digest: str
    fingerprint: str


def load(*, root: str | None, image_size: int | None, channels: int, store_dir: str, listener: Listener) -> Source:
    """Decode all images under `root` to squares of `image_size` pixels, or as they are if all have one size.

    The classes are the folders of ROOT/train, or else of ROOT, in alphabetical order. Raises UserError for whatever
    would lose data without notice: a missing folder, a class that train does not have, a file that cannot be decoded,
    different sizes; and for images that do not fit into memory. Files that have no image's extension are counted in
    the notes. The decoded images are kept in the store for the next run, under the names, sizes and modification times
    of all files.
    """
    optional(whole(1)).check("image_size", image_size)
    one_of(1, 3).check("channels", channels)
    folders, notes = _split_folders(root)
    classes = _class_names(folders["train"])
    listings = {name: _list(name, folder, classes) for name, folder in folders.items()}
    notes += _memory_notes(listings, image_size, channels)
    environment = {package: metadata.version(package) for package in ("distill-run", "pillow", "numpy")}
    store, top = Store(Path(store_dir), listener, environment), Path(root or "")
    decoded = {name: _obtain(listing, top, image_size, channels, store) for name, listing in listings.items()}
    for name, listing in listings.items():
        notes.extend(_notes(name, listing))
    return Source(
        train=decoded["train"].split,
        val=decoded["val"].split if "val" in decoded else None,
        test=decoded["test"].split if "test" in decoded else None,
        classes=tuple(classes),
        notes=tuple(notes),
        entries=tuple((KIND, each.fingerprint) for each in decoded.values()),
        digests={name: each.digest for name, each in decoded.items()},
    )


def _split_folders(root: str | None) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and a note for each folder that is not read.

    Where `root` holds the class folders themselves, it is the folder of train.
    """
    holds = "holds a folder of images for each class, or train/ and test/ with such folders"
    if root is None:
        raise user_error("dataset.root is not set", f"write dataset.root=DIR, where DIR {holds}")
    folder = Path(root)
    if not folder.is_dir():
        raise user_error(f"dataset.root={root} is not a folder", f"give the folder that {holds}")
    there = sorted(child.name for child in folder.iterdir() if child.is_dir())
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
    notes = [f"{folder / name} is not read: it is none of {', '.join(SPLITS)}" for name in others]
    return {name: folder / name for name in SPLITS if name in there}, notes


def _is_misspelt(found: str, name: str) -> bool:
    """Whether a folder is meant to be that of a split: training, tset, Val."""
    return found.lower() in LONG_NAMES[name] or bool(difflib.get_close_matches(name, [found.lower()], cutoff=0.75))


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir() if path.is_file())


def _memory_notes(listings: Mapping[str, Listing], image_size: int | None, channels: int) -> list[str]:
    """A warning where the images fill much of the memory; raises UserError where they do not fit."""
    shape, free = shape_of_first(listings["train"].paths, image_size, channels), free_memory()
    if shape is None or free is None:
        return []
    warning = check_memory(sum(len(listing.paths) for listing in listings.values()), shape, free)
    return [] if warning is None else [warning]


def _class_names(train: Path) -> list[str]:
    classes = sorted(child.name for child in train.iterdir() if child.is_dir())
    if len(classes) < 2:
        raise user_error(
            f"{train} has fewer than two class folders", f"make one folder for each class, as in {train}/cat"
        )
    return classes


def _list(split: str, folder: Path, classes: Sequence[str]) -> Listing:
    """The files of a split; raises UserError for classes that train does not have, and if there is no image."""
    _check_classes(folder, classes)
    listing = Listing([], [], Counter(path.suffix for path in folder.iterdir() if path.is_file()))
    for target, name in enumerate(classes):
        is_empty = True
        for path in sorted((folder / name).rglob("*")):
            if not path.is_file():
                continue
            if path.suffix.lower() in EXTENSIONS:
                listing.paths.append(path)
                listing.targets.append(target)
                is_empty = False
            else:
                listing.skipped[path.suffix] += 1
        if is_empty and split == "train":
            raise user_error(f"{folder / name} holds no image", "put images there, or remove the folder")
    if not listing.paths:
        raise user_error(f"{folder} holds no image", "put images into its class folders")
    return listing


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Raise UserError if a split has no class of train, or a class that train does not have."""
    found = sorted(child.name for child in folder.iterdir() if child.is_dir())
    if not set(found) & set(classes):
        raise user_error(
            f"{folder} shares no class with train: it has {_some(found)}, train has {_some(classes)}",
            "use the same names of folders in every split",
        )
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise UserError(_unknown_class(folder / name, classes) for name in unknown)


def _unknown_class(folder: Path, classes: Sequence[str]) -> Mistake:
    near = difflib.get_close_matches(folder.name, classes, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"train has {_some(classes)}"
    return Mistake(f"{folder} is a class that train does not have", remedy)


def _obtain(listing: Listing, top: Path, image_size: int | None, channels: int, store: Store) -> DecodedSplit:
    """Decode the images of a listing, or read what an earlier run over the same files kept in the store.

    The split names its files from the folder `top` on.
    """
    stats = [path.stat() for path in listing.paths]
    signatures = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in zip(listing.paths, stats, strict=True)]
    fingerprint = fingerprint_of({"files": signatures, "image_size": image_size, "channels": channels})

    def make(directory: Path) -> dict[str, Any]:
        np.save(directory / FILE, decode(listing.paths, image_size, channels, store.listener).numpy())
        return {"about": f"{len(listing.paths):,} images of {os.path.commonpath(listing.paths)}"}

    directory, _ = store.obtain(KIND, fingerprint, make)
    images_digest: str = read_meta(directory)["files"][FILE]  # the store has just verified it: no need to hash again
    targets = torch.tensor(listing.targets)
    digest = hashlib.sha256(images_digest.encode() + targets.numpy().tobytes()).hexdigest()
    paths = tuple(path.relative_to(top).as_posix() for path in listing.paths)
    return DecodedSplit(Split(torch.from_numpy(np.load(directory / FILE)), targets, paths), digest, fingerprint)


def _notes(split: str, listing: Listing) -> list[str]:
    return [
        f"{split}: {count} file{'s' if count > 1 else ''} skipped, {_reason(suffix)}"
        for suffix, count in listing.skipped.items()
    ]


def _reason(suffix: str) -> str:
    """Why files with this extension are not read."""
    if suffix.lower() in EXTENSIONS:
        return f"{suffix} outside the class folders"
    return f"{suffix or 'no extension'} is no image"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_SHOWN]) + (" ..." if len(names) > MOST_SHOWN else "")
