"""The files and folders of images that a user names, and the classes that the names of folders give."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_run.data.labels import as_label, some
from distill_run.data.listing import Left, list_images, read_folder, skipped_notes
from distill_run.deploy.photographs import Photograph
from distill_run.errors import Mistake, UserError, user_error


@dataclass(frozen=True)
class ImagePlace:
    """A file, or a folder with the paths of the images in it, and how much else it has, by reason.

    `targets` are the indices of the classes by the names of the folder's subfolders; empty where these are no classes,
    and `misfit` says why.
    """

    path: Path
    images: list[str]
    skipped: Counter[Left]
    targets: dict[str, int]
    misfit: str

    def photographs(self) -> Iterator[Photograph]:
        """The images with their classes."""
        for image in self.images:
            folder, separator, _ = image.removeprefix(str(self.path)).lstrip(os.sep).partition(os.sep)
            yield Photograph(image, self.targets.get(as_label(folder)) if separator else None)

    @property
    def notes(self) -> list[str]:
        """Sentences on the files that are not read."""
        return skipped_notes(str(self.path), self.skipped)


def list_places(paths: Sequence[Path], classes: Sequence[str]) -> list[ImagePlace]:
    """The images in files and folders, which must exist; raises UserError for a folder without an image."""
    places = [_list_place(path, classes) for path in paths]
    empty = [place for place in places if not place.images]
    if empty:
        raise UserError(Mistake(f"{place.path} holds no image", _about_empty(place)) for place in empty)
    return places


def require_targets(places: Sequence[ImagePlace]) -> None:
    """Raise UserError where the class of some images is not known."""
    for place in places:
        if place.misfit:
            raise user_error(
                f"--errors needs the right classes: {place.misfit}",
                "give a folder with a folder of images for each class; or no images, for the test split of the run",
            )


def _list_place(path: Path, classes: Sequence[str]) -> ImagePlace:
    if not path.is_dir():
        return ImagePlace(path, [str(path)], Counter(), {}, f"{path} is a file")
    images, skipped = list_images(path)
    names = list(map(as_label, read_folder(path).folders))
    strangers = [name for name in names if name not in classes]
    misfit = "" if names else f"{path} has no subfolders"
    if strangers:
        misfit = f"{path / strangers[0]} is none of the classes {some(classes)}"
    targets = {name: classes.index(name) for name in names} if not misfit else {}
    return ImagePlace(path, images, skipped, targets, misfit)


def _about_empty(place: ImagePlace) -> str:
    return "; ".join(place.notes) or "give a folder of images, in any subfolders, or the file of an image"
