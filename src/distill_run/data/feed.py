"""TEMPORARY: replaced at the merge."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill_run.data.batches import Batch, Batches
from distill_run.data.mixing import Mixing
from distill_run.data.source import Split
from distill_run.data.splits import Dataset, channel_statistics, make_dataset
from distill_run.data.views import Views


@dataclass(frozen=True)
class ViewChoice:
    seed: int
    num_views: int | None
    mixup: float
    cutmix: float

    def views_of(self, num_epochs: int) -> int:
        return min(num_epochs, self.num_views or num_epochs)


class Feed:
    def __init__(self, dataset: Dataset, augment: Any) -> None:
        self.dataset, self.augment = dataset, augment
        self.train, self.val, self.test = dataset.train, dataset.val, dataset.test
        self.classes, self.notes, self.content = dataset.classes, dataset.notes, dataset.content
        from distill_run.models.network import ImageShape

        c, h, w = self.train.images.shape[1:]
        self.shape = ImageShape(c, (h, w), len(self.classes))

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        return channel_statistics(self.train.images)

    def _views(self, v: ViewChoice) -> Views:
        mixed = v.mixup > 0 or v.cutmix > 0
        mixing = Mixing(len(self.train), self.shape.image_size, v.mixup, v.cutmix) if mixed else None
        return Views(self.train.images, self.augment, v.seed, mixing)

    def batches(self, views: ViewChoice, batch_size: int, seed: int) -> Batches:
        return Batches(self.train, self._views(views), batch_size, seed, views.num_views)

    def view_in_order(self, views: ViewChoice, view: int, chunk_size: int) -> Iterator[Batch]:
        rendering = self._views(views)
        targets = self.train.targets
        everything = torch.arange(len(targets), device=targets.device)
        for indices in torch.split(everything, chunk_size):
            yield Batch(indices, rendering.render(indices, view), targets[indices], view)

    def render(self, views: ViewChoice, indices: Tensor, view: int) -> Tensor:
        return self._views(views).render(indices, view)


MemoryFeed = Feed


class Feeds:
    def open(self, settings: Any, builder: Any, device: torch.device) -> Feed:
        source = builder.build(settings.source, "dataset.source")
        self.entries = source.entries
        ds = make_dataset(source, settings.val_fraction, settings.train_fraction, settings.split_seed)
        return Feed(ds.to(device), settings.augment)
