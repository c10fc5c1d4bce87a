"""From lists of photographs to a dataset: all are read once, and kept in memory where they fit."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from distill_run.config.schema import DatasetSettings
from distill_run.data.decode import CentreCrop, Decoder
from distill_run.data.duplicates import duplicate_notes, seen_notes
from distill_run.data.framing import Framing
from distill_run.data.memory import memory_limit
from distill_run.data.photo_list import PhotoList
from distill_run.data.photo_split import PhotoSplit
from distill_run.data.photos import KeptPhotos, ReadPhotos, map_pixels
from distill_run.data.pixels import DARK, FRAMES, TRANSPARENT
from distill_run.data.source import MovableSet, Split
from distill_run.data.splits import Dataset, Division
from distill_run.data.survey import KIND, Survey, survey
from distill_run.data.unlabelled import UNLABELLED_KEY, UNLABELLED_NAME, join
from distill_run.errors import gather, user_error
from distill_run.store import Store
from distill_run.units import counted, quantity

T = TypeVar("T")

MOST_WORKERS = 8  # that are started where the user does not say how many
MOST_NAMED = 5


class Opened(NamedTuple):
    """A split of photographs that can be served, and what reading them found."""

    split: MovableSet
    survey: Survey


@dataclass(frozen=True)
class PhotoOpener:
    """Opens splits of photographs in a framing."""

    framing: Framing
    settings: DatasetSettings
    store: Store

    def open(
        self, division: Division[PhotoList], classes: tuple[str, ...], unlabelled: PhotoList | None
    ) -> tuple[Dataset, Survey]:
        """The dataset, whose notes say what was decided, and what reading its training photographs found.

        Raises UserError for files that cannot be read, unless they are to be skipped.
        """
        splits = {name: division.splits[name] for name in ("train", "val", "test")}
        splits |= {} if unlabelled is None else {UNLABELLED_NAME: unlabelled}
        kept, choices = self._choose_kept(splits)
        several = gather(partial(self.open_split, name, each, keeps_pixels=kept[name]) for name, each in splits.items())
        opened = dict(zip(splits, several, strict=True))
        notes: list[str] = []
        for name, photos in splits.items():
            notes += reading_notes(name, photos, opened[name].survey)
        train, test, others = opened["train"].survey, opened["test"].survey, opened.get(UNLABELLED_NAME)
        notes += duplicate_notes(train.identities, test.identities)
        notes += seen_notes(others.survey.identities, test.identities) if others else []
        dataset = Dataset(
            train=opened["train"].split,
            val=opened["val"].split,
            test=opened["test"].split,
            classes=classes,
            notes=tuple(notes),
            content=_content(opened, self.framing, division),
            entries=tuple((KIND, each.survey.fingerprint) for each in opened.values()),
            choices=tuple(choices),
            pool=join(opened["train"].split, others.split) if others else None,
            unlabelled_content=others.survey.content if others else None,
            crop_ratio=self.framing.crop_ratio,
        )
        return dataset, train

    def _choose_kept(self, splits: Mapping[str, PhotoList]) -> tuple[dict[str, bool], list[str]]:
        """Which splits are kept in memory, and sentences on that.

        Memory is given to test and validation first, which are read as a whole after each epoch. Unlabelled photographs
        are served together with those of train, and kept as they are.
        """
        limit = free = memory_limit(self.settings.memory_gigabytes)
        kept, notes = {}, []
        for name in ("test", "val", "train"):
            num = len(splits[name]) + (len(splits.get(UNLABELLED_NAME, ())) if name == "train" else 0)
            needed = self._pixels(name) * splits[name].channels * num
            kept[name] = needed <= free
            if kept[name]:
                free -= needed
            else:
                notes.append(self._says_why_not_kept(name, num, needed, free))
        if all(kept.values()):
            notes.append(f"all images are kept in memory: {quantity(limit - free)}B of {quantity(limit)}B at most")
        return {**kept, UNLABELLED_NAME: kept["train"]}, notes

    def _pixels(self, name: str) -> float:
        """How many pixels a photograph of a split has, about."""
        return self.framing.mean_pixels if name == "train" else math.prod(self.framing.image_size)

    def open_split(self, name: str, photos: PhotoList, *, keeps_pixels: bool) -> Opened:
        """The photographs of a split; raises UserError as `open` does."""
        form = self.framing.train_form if name in ("train", UNLABELLED_NAME) else self.framing.evaluation_form
        decoder = Decoder(photos.channels, form)
        skips = self.settings.on_error == "skip"
        found = survey(photos, decoder, self.store, keeps_pixels=keeps_pixels, skips_damaged=skips)
        if not len(found.readable):
            where = UNLABELLED_KEY if name == UNLABELLED_NAME else "dataset.root"
            raise user_error(f"no {name} image can be read: {found.problems[0]}", f"see what is in {where}")
        photos, sizes = photos.select(torch.from_numpy(found.readable)), found.sizes[found.readable]
        if found.pixels_path is None:
            kept: KeptPhotos | ReadPhotos = ReadPhotos(photos, decoder, sizes)
        else:
            kept = KeptPhotos(map_pixels(found.pixels_path), sizes, photos.channels)
            if isinstance(form, CentreCrop):
                names = tuple(photos.name(index) for index in range(len(photos)))
                return Opened(Split(kept.as_images(), photos.targets, names), found)
        split = PhotoSplit(kept, photos.targets, self.framing.image_size, photos.name, self._num_workers())
        return Opened(split, found)

    def _num_workers(self) -> int:
        """How many processes read photographs: one core is left to training."""
        if self.settings.workers is not None:
            return self.settings.workers
        return min(max((os.cpu_count() or 1) - 1, 1), MOST_WORKERS)

    def _says_why_not_kept(self, name: str, num: int, needed: float, free: float) -> str:
        workers = self._num_workers()
        readers = {0: "the process that trains reads", 1: "a worker process reads"}
        who = readers.get(workers, f"{workers} worker processes read")
        return (
            f"{name}: {num:,} photographs take {quantity(needed)}B of memory, {quantity(free)}B are left for them: "
            f"{who} them again in every epoch (dataset.memory_gigabytes, dataset.workers)"
        )


def reading_notes(name: str, photos: PhotoList, found: Survey) -> list[str]:
    """What was done to the photographs of a split that the user may not expect."""
    notes = remark_notes(found.remarks, photos.name)
    if found.problems:
        files = f"{counted(len(found.problems), 'file')} skipped, which cannot be read"
        notes.append(f"{files}: {_first(list(found.problems), photos.name)}")
    return [f"{name}: {note}" for note in notes]


def remark_notes(remarks: Mapping[str, Sequence[T]], name_of: Callable[[T], str]) -> list[str]:
    """What is told of the images that have a remark of data/pixels.py: how many they are, and the first of them."""
    return [
        f"{counted(len(images), 'image')} {remark}: {_first(images, name_of)}"
        for remark in (TRANSPARENT, FRAMES, DARK)
        if (images := remarks.get(remark))
    ]


def _first(images: Sequence[T], name_of: Callable[[T], str]) -> str:
    """The first of some images, by name."""
    return ", ".join(map(name_of, images[:MOST_NAMED])) + (" ..." if len(images) > MOST_NAMED else "")


def _content(opened: Mapping[str, Opened], framing: Framing, division: Division[PhotoList]) -> str:
    """The sha256 of what the three splits serve: it does not depend on where the pixels are kept."""
    digest = hashlib.sha256(f"{framing.image_size} {framing.crop_ratio}".encode())
    for name in ("train", "val", "test"):
        found = opened[name].survey
        for values in (found.sizes, found.digests, division.splits[name].targets.numpy()):
            digest.update(f"{name} {values.shape} ".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
