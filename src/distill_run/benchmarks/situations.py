"""The situations of the grid in `defaults`: data, how many images, student and mode; and how each is composed."""

import random
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from distill_run.benchmarks.sweep import make_subset
from distill_run.config.compose import option_names
from distill_run.errors import user_error

COMMON = ("teacher=cnn_medium", "training.views=8", "device.precision=fp32", "repeats=1")
STUDENTS = {name: [f"student={name}"] for name in ("cnn_small", "resnet8", "resnet20", "mobilenet_v2", "vit_tiny")}
STUDENTS["timm"] = ["student=timm", "student.name=resnet10t"]
SOFT = [f"soft,temperature={temperature},alpha={alpha}" for temperature, alpha in product((1, 4, 20), (0.1, 0.9, 1))]
SEARCH = "search"  # stands in the place of the mode: no distillation, but a search of the learning rate
NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
SIDES = (40, 160)  # pixels of the images of mixed sizes, at least and at most
SPLITS = ("train", "test")


class Photos(NamedTuple):
    """The first photographs of the first classes of a CIFAR folder."""

    source: str
    num_classes: int
    num_train: int
    num_test: int
    is_mixed: bool  # resized to random sizes


PHOTOS = {
    "ten": Photos("cifar10", 10, 25_000, 2_000, is_mixed=False),
    "seven": Photos("cifar100", 7, 7 * 40, 7 * 100, is_mixed=True),
    "hundred": Photos("cifar100", 100, 25_000, 2_000, is_mixed=False),
    "two": Photos("cifar10", 2, 2 * 60, 2 * 100, is_mixed=True),
}
FRACTIONS = {  # dataset.train_fraction, of the images that stay after a tenth was cut off for validation
    "digits": {"few": 0.2, "many": 1.0},
    "ten": {"few": 0.1, "many": 1.0},  # 2,250 and 22,500 images
    "seven": {"few": 0.5, "many": 1.0},
    "hundred": {"few": 0.1, "many": 1.0},
    "two": {"few": 0.5, "many": 1.0},
}


def all_cells(*, with_search: bool) -> list[str]:
    """The names of all cells, DATA/SIZE/STUDENT/MODE; soft is tried at nine temperatures and alphas.

    Mode none is left out: there student and baseline are equal.
    """
    others = [name for name in option_names("mode") if name != "none"]
    modes = [*SOFT, *others, *([SEARCH] if with_search else [])]
    return [
        f"{data}/{size}/{student}/{mode}"
        for data, sizes in FRACTIONS.items()
        for size, student, mode in product(sizes, STUDENTS, modes)
    ]


def overrides_of(cell: str, folder: Path) -> list[str]:
    """The command line of a cell, whose photographs and store lie in `folder`."""
    data, size, student, mode = cell.split("/")
    name, *keys = ("none" if mode == SEARCH else mode).split(",")
    overrides = [*COMMON, *STUDENTS[student], f"mode={name}", *(f"mode.{key}" for key in keys)]
    overrides += [f"store_dir={folder / 'store'}", f"dataset.train_fraction={FRACTIONS[data][size]}"]
    if data in PHOTOS:
        overrides += ["dataset=image_folder", f"dataset.root={folder / data}"]
        overrides += ["dataset.image_size=64"] if PHOTOS[data].is_mixed else []
    return overrides


def make_photos(data: str, sources: Mapping[str, Path], folder: Path) -> None:
    """Make the image folder of `data` in `folder`, where it is not there yet; `sources` are the CIFAR folders."""
    photos, target = PHOTOS[data], folder / data
    if target.is_dir():
        return
    unfinished = folder / f".{data}"  # where an earlier attempt was cut short, it is still there
    unfinished.mkdir(parents=True, exist_ok=True)
    if photos.is_mixed:
        _resize(sources[photos.source], unfinished, photos)
    else:
        make_subset(sources[photos.source].resolve(), unfinished, photos.num_train, photos.num_test)
    unfinished.rename(target)


def check_source(name: str, folder: Path) -> None:
    """Raise UserError where `folder` does not hold the classes of that CIFAR folder."""
    wanted = NUM_CLASSES[name]
    for split in SPLITS:
        found = len(_class_folders(folder / split)) if (folder / split).is_dir() else 0
        if found != wanted:
            raise user_error(
                f"--{name}={folder}: {folder / split} has {found} class folders, not {wanted}",
                f"give a folder with train/<class>/* and test/<class>/*, as in --{name} photos/{name}",
            )


def _resize(source: Path, target: Path, photos: Photos) -> None:
    """Write images of random sizes; the same in every call."""
    generator = random.Random(0)
    for split, count in zip(SPLITS, (photos.num_train, photos.num_test), strict=True):
        for each in _class_folders(source / split)[: photos.num_classes]:
            folder = target / split / each.name
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(each.iterdir())[: count // photos.num_classes]:
                size = (generator.randint(*SIDES), generator.randint(*SIDES))
                with Image.open(path) as image:
                    image.convert("RGB").resize(size).save(folder / f"{path.stem}.png")


def _class_folders(split: Path) -> list[Path]:
    return sorted(folder for folder in split.iterdir() if folder.is_dir())
