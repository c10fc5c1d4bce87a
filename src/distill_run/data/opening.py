"""From the settings of a dataset to its feed; runs of one process that use the same data share them."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

from distill_run.build import Builder
from distill_run.config.schema import DatasetSettings
from distill_run.data.decode import CentreCrop
from distill_run.data.duplicates import digests, seen_notes
from distill_run.data.feed import Feed, MemoryFeed
from distill_run.data.framing import Framing, PublishedCrop, choose_size
from distill_run.data.kept import Kept
from distill_run.data.photo_opening import PhotoOpener, reading_notes
from distill_run.data.photo_split import PhotoSplit
from distill_run.data.photos import KeptPhotos
from distill_run.data.source import MovableSet, PhotoSource, Source, Split
from distill_run.data.splits import (
    Dataset,
    Fractions,
    channel_statistics,
    divide,
    division_notes,
    make_dataset,
    statistics_of,
)
from distill_run.data.survey import KIND
from distill_run.data.unlabelled import UNLABELLED_NAME, check_apart, join, list_unlabelled
from distill_run.data.view_steps import build_steps
from distill_run.data.window import AUTO, RandomResizedCrop, settle_window
from distill_run.data.worker_feed import WorkerFeed
from distill_run.errors import user_error
from distill_run.listener import Listener
from distill_run.store import Store

KEY = "dataset.source"


@cache
def shared_feeds() -> "Feeds":
    """What opens the feeds of all runs of this process, whichever process that is."""
    return Feeds()


@dataclass(frozen=True)
class OpenedData:
    """A dataset, and mean and standard deviation of each channel of its training images, in 0..1.

    `is_resized` says whether it consists of photographs that are brought to one size.
    """

    dataset: Dataset
    statistics: tuple[list[float], list[float]]
    is_resized: bool


class Opened(NamedTuple):
    """A feed, and the YAML of its augmentations with nothing left to decide."""

    feed: Feed
    augment: dict[str, Any]


class Feeds:
    """Opens feeds and keeps the data of the last one, with what was worked out from them.

    The points of a sweep differ in other things than the data most of the time: where the source, the cut and the
    device are the same, nothing is read or hashed again. Files that change meanwhile are not noticed.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._data: OpenedData | None = None
        self._kept = Kept()

    def open(
        self,
        settings: DatasetSettings,
        builder: Builder,
        device: torch.device,
        store: Store,
        published: PublishedCrop | None = None,
    ) -> Opened:
        """The feed that the settings describe, on a device; raises UserError where that is not possible.

        Photographs become images like those of the `published` teacher, unless the settings name a size.
        """
        window = build_steps(settings.augment, builder).window
        read = dataclasses.replace(
            settings, augment={}, mean=None, std=None, num_classes=None, repeats=1, unlabelled_share=None
        )
        shape_of_window = None if window is None else (window.scale == AUTO, window.shorter_side)
        key = (read, builder.code_dir, device, shape_of_window, published)
        if self._data is None or self._key != key:
            self._data = None  # before others are read: two datasets may not fit into memory
            data = _open(settings, builder, store, published)
            self._data, self._key = dataclasses.replace(data, dataset=data.dataset.to(device)), key
            self._kept = Kept()
        augment, _ = settle_window(settings.augment, is_resized=self._data.is_resized)
        steps = build_steps(augment, builder)
        feed: Feed
        if isinstance(self._data.dataset.train, PhotoSplit):
            feed = WorkerFeed(self._data.dataset, steps, self._data.statistics)
        else:
            feed = MemoryFeed(self._data.dataset, steps.augmentations)
        feed.kept = self._kept
        return Opened(feed, augment)


def _open(settings: DatasetSettings, builder: Builder, store: Store, published: PublishedCrop | None) -> OpenedData:
    """The dataset on the CPU."""
    source = load_source(settings.source, builder, store.listener)
    fractions = Fractions(settings.test_fraction, settings.val_fraction, settings.train_fraction, settings.split_seed)
    if isinstance(source, Source):
        augment, _ = settle_window(settings.augment, is_resized=False)
        dataset = _with_unlabelled(make_dataset(source, fractions), settings, store)
        return _open_images(dataset, settings, build_steps(augment, builder).window)
    choice = choose_size(source.train, settings, published)
    augment, window_notes = settle_window(settings.augment, is_resized=choice.is_resized)
    framing = choice.framing(build_steps(augment, builder).window)
    division = divide(source.train, {"val": source.val, "test": source.test}, len(source.classes), fractions)
    unlabelled, skipped = list_unlabelled(settings.unlabelled, source.train.channels)
    check_apart(unlabelled, division.splits.values())
    dataset, found = PhotoOpener(framing, settings, store).open(division, source.classes, unlabelled)
    notes = (*source.notes, *skipped, *division_notes(division, source.classes, fractions), *dataset.notes)
    choices = (*choice.notes, *window_notes, *dataset.choices)
    dataset = dataclasses.replace(dataset, notes=notes, choices=choices)
    return OpenedData(dataset, statistics_of(torch.from_numpy(found.counts)), choice.is_resized)


def _with_unlabelled(dataset: Dataset, settings: DatasetSettings, store: Store) -> Dataset:
    """A dataset whose images came in memory, with the unlabelled photographs as images of the same shape."""
    channels, height, width = dataset.train.shape
    photos, notes = list_unlabelled(settings.unlabelled, channels)
    if photos is None:
        return dataset
    form = CentreCrop((height, width), 1.0)
    opener = PhotoOpener(Framing((height, width), 1.0, form, float(height * width)), settings, store)
    split, found = opener.open_split(UNLABELLED_NAME, photos, keeps_pixels=True)
    assert isinstance(split, Split)
    assert isinstance(dataset.test, Split)
    notes += reading_notes(UNLABELLED_NAME, photos, found)
    notes += seen_notes(digests(split.images), digests(dataset.test.images))
    return dataclasses.replace(
        dataset,
        pool=join(dataset.train, split),
        unlabelled_content=found.content,
        notes=(*dataset.notes, *notes),
        entries=(*dataset.entries, (KIND, found.fingerprint)),
    )


def _open_images(dataset: Dataset, settings: DatasetSettings, window: RandomResizedCrop | None) -> OpenedData:
    """A dataset whose images came in memory; raises UserError for settings that are for photographs."""
    train = dataset.train
    assert isinstance(train, Split)
    height, width = train.shape[1:]
    for key, value, usual in (("image_size", settings.image_size, height), ("crop_ratio", settings.crop_ratio, 1.0)):
        if value not in (None, usual):
            raise user_error(
                f"dataset.{key}={value} is for photographs; this dataset has images of {height}x{width}",
                "leave it out; a teacher of torchvision or timm resizes them, as in teacher.input_size=64",
            )
    statistics = channel_statistics(train.images)
    if window is None:
        return OpenedData(dataset, statistics, is_resized=False)
    pool = None if dataset.pool is None else _as_photos(dataset.pool)
    return OpenedData(dataclasses.replace(dataset, train=_as_photos(train), pool=pool), statistics, is_resized=False)


def _as_photos(split: MovableSet) -> PhotoSplit:
    """Images in memory as photographs, out of which windows can be cut."""
    assert isinstance(split, Split)
    return PhotoSplit(KeptPhotos.of_images(split.images), split.targets, split.shape[1:], split.name, workers=0)


def check_source(node: Mapping[str, Any], builder: Builder) -> None:
    """Raise UserError unless the node of a source names a function that takes its arguments; nothing is read."""
    builder.bind(node, KEY, listener=None)


def load_source(node: Mapping[str, Any], builder: Builder, listener: Listener) -> Source | PhotoSource:
    """What the node of a source gives; a source that takes a `listener` is given one, to tell how far it is."""
    injected = {"listener": listener}
    takes_it = "listener" in inspect.signature(builder.bind(node, KEY, **injected)).parameters
    source = builder.build(node, KEY, **(injected if takes_it else {}))
    if not isinstance(source, Source | PhotoSource):
        raise user_error(
            f"{KEY}._target_={node['_target_']} gives no Source", "return a distill_run.data.source.Source"
        )
    return source
