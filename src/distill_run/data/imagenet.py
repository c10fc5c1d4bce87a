"""ImageNet in its usual layout: ROOT/train/<wnid>/* and ROOT/val/<wnid>/*, where a wnid is an id such as n01440764."""

from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from distill_run.data.image_folder import list_splits
from distill_run.data.listing import read_folder
from distill_run.data.source import PhotoSource
from distill_run.errors import user_error
from distill_run.listener import Listener

LAYOUT = "give the folder that holds train/<wnid>/ and val/<wnid>/, as in train/n01440764/"


def load(*, root: str | None, listener: Listener) -> PhotoSource:
    """The colour photographs under `root`; they are not read yet.

    Those of ROOT/val, on which published figures are measured, are the test split. Classes are called by their names
    where the folders of all of them are of ImageNet's 1,000. Raises UserError where a folder is missing.
    """
    if root is None:
        raise user_error("dataset.root is not set", f"write dataset.root=DIR: {LAYOUT}")
    top = Path(root)
    folders = {"train": top / "train", "test": top / "val"}
    for folder in folders.values():
        if not folder.is_dir():
            raise user_error(f"dataset.root={root} has no folder {folder.name}", LAYOUT)
    if not read_folder(folders["test"]).folders:
        raise user_error(
            f"{folders['test']} has no class folders",
            "move its images into folders of their classes, as in train",
        )
    source = list_splits(top, folders, 3, listener)
    names = {synset: first for first, *_, synset in imagenet_names()}
    if not names.keys() >= set(source.classes):
        return source
    return replace(source, classes=tuple(names[synset] for synset in source.classes))


@cache
def imagenet_names() -> tuple[tuple[str, ...], ...]:
    """The names of ImageNet's 1,000 classes in the usual order: torchvision's first, WordNet's others, its id last."""
    text = files("distill_run.data").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    rows = (line.split(": ") for line in text.splitlines())
    return tuple((*names.split(", "), synset) for synset, names in rows)
