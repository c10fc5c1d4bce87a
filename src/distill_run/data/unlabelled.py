"""Images without targets: a folder of photographs that join the training of students."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from distill_run.data.batches import UNLABELLED
from distill_run.data.decode import MODES
from distill_run.data.listing import list_images, skipped_notes, tells_empty
from distill_run.data.photo_list import FileReader, PhotoList
from distill_run.data.photo_split import PhotoSplit
from distill_run.data.photos import JoinedPhotos
from distill_run.data.source import MovableSet, Split
from distill_run.errors import user_error

UNLABELLED_NAME = "unlabelled"  # as splits have names
UNLABELLED_KEY = f"dataset.{UNLABELLED_NAME}"


def list_unlabelled(folder: str | None, channels: int) -> tuple[PhotoList | None, list[str]]:
    """All images under a folder, in any subfolders, and a note on the files that are no images; None: no folder.

    Raises UserError for a folder that is not there or holds no image, and for `channels` that photographs do not have.
    """
    if folder is None:
        return None, []
    top = Path(folder)
    if not top.is_dir():
        raise user_error(f"{UNLABELLED_KEY}={folder} is not a folder", "give a folder of images, in any subfolders")
    if channels not in MODES:
        raise user_error(
            f"{UNLABELLED_KEY}={folder}: the dataset has images of {channels} channels, photographs have 1 or 3",
            f"leave {UNLABELLED_KEY} out",
        )
    paths, skipped = list_images(top)
    if not paths:
        raise user_error(tells_empty(f"{UNLABELLED_KEY}={folder}", skipped), "put images there, in any subfolders")
    reader = FileReader(top, (os.path.relpath(path, top) for path in paths))
    return PhotoList.of_all(reader, [UNLABELLED] * len(paths), channels), skipped_notes(UNLABELLED_NAME, skipped)


def check_apart(unlabelled: PhotoList | None, labelled: Iterable[PhotoList]) -> None:
    """Raise UserError where an image stands among the unlabelled ones and in a split, which would then not be new."""
    if unlabelled is None:
        return
    places = {unlabelled.place(index) for index in range(len(unlabelled))}
    found = [place for photos in labelled for place in map(photos.place, range(len(photos))) if place in places]
    if found:
        raise user_error(
            f"{UNLABELLED_KEY} holds {len(found):,} images of the dataset itself, such as {found[0]}",
            "keep the unlabelled images in a folder of their own, beside dataset.root",
        )


def join(train: MovableSet, unlabelled: MovableSet) -> MovableSet:
    """The images of the training split, then the unlabelled ones, which are kept in the same way."""
    targets = torch.cat([train.targets, unlabelled.targets])
    if isinstance(train, Split) and isinstance(unlabelled, Split):
        names = tuple(each.name(index) for each in (train, unlabelled) for index in range(len(each)))
        return Split(torch.cat([train.images, unlabelled.images]), targets, names)
    assert isinstance(train, PhotoSplit)
    assert isinstance(unlabelled, PhotoSplit)
    num = len(train)

    def name_of(index: int) -> str:
        return train.name(index) if index < num else unlabelled.name(index - num)

    photos = JoinedPhotos(train.photos, unlabelled.photos)
    return PhotoSplit(photos, targets, train.image_size, name_of, train.workers)
