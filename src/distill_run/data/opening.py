"""From the settings of a dataset to its feed; runs of one process that use the same data share them."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from distill_run.build import Builder
from distill_run.config.schema import DatasetSettings
from distill_run.data.augment import build_augmentations
from distill_run.data.feed import Feed, MemoryFeed
from distill_run.data.source import Source
from distill_run.data.splits import Dataset, Fractions, make_dataset
from distill_run.listener import NOBODY, Listener

KEY = "dataset.source"


@cache
def shared_feeds() -> "Feeds":
    """What opens the feeds of all runs of this process, whichever process that is."""
    return Feeds()


class Feeds:
    """Opens feeds and keeps the data of the last one.

    The points of a sweep differ in other things than the data most of the time: where the source, the cut and the
    device are the same, nothing is read or hashed again. Files that change meanwhile are not noticed.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._dataset: Dataset | None = None

    def open(
        self, settings: DatasetSettings, builder: Builder, device: torch.device, listener: Listener = NOBODY
    ) -> Feed:
        """The feed that the settings describe, on a device; raises UserError where that is not possible."""
        augmentations = build_augmentations(settings.augment, builder)
        return MemoryFeed(self._obtain(settings, builder, device, listener), augmentations)

    def _obtain(self, settings: DatasetSettings, builder: Builder, device: torch.device, listener: Listener) -> Dataset:
        fractions = Fractions(
            settings.test_fraction, settings.val_fraction, settings.train_fraction, settings.split_seed
        )
        key = (settings.source, builder.code_dir, fractions, device)
        if self._dataset is None or self._key != key:
            self._dataset = None  # before others are read: two datasets may not fit into memory
            self._dataset = make_dataset(_load(settings.source, builder, listener), fractions).to(device)
            self._key = key
        return self._dataset


def check_source(node: Mapping[str, Any], builder: Builder) -> None:
    """Raise UserError unless the node of a source names a function that takes its arguments; nothing is read."""
    builder.bind(node, KEY, listener=None)


def _load(node: Mapping[str, Any], builder: Builder, listener: Listener) -> Source:
    """What the node of a source gives; a source that takes a `listener` is given one, to tell how far it is."""
    injected = {"listener": listener}
    takes_it = "listener" in inspect.signature(builder.bind(node, KEY, **injected)).parameters
    remedy = "return a distill_run.data.source.Source"
    return builder.build_kind(Source, remedy, node, KEY, **(injected if takes_it else {}))
