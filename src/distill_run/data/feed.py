"""Feeds: everything that trains, measures or draws images gets them from a Feed, wherever the images lie."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch
from torch import Tensor

from distill_run.data.augment import Augmentation
from distill_run.data.batches import Batch, Batches
from distill_run.data.kept import Kept
from distill_run.data.source import EVERYTHING, ImageSet, ImageShape, Split
from distill_run.data.splits import Dataset, channel_statistics
from distill_run.data.views import ViewChoice, Views

RENDERED = 2**24  # numbers of float32 images that a GPU renders together, 64 MB


class Feed(ABC):
    """The data of a run: three splits, and the augmented views of the training samples.

    `pool` holds the images of the training split, then the unlabelled ones, whose target is UNLABELLED and whose sha256
    is `unlabelled_content`. Where there are none, that is None, and the pool is the training split.
    `notes` are sentences for the user about the data, `choices` are on what was decided about photographs. `content` is
    a sha256 that changes with every image and target of the three splits. `entries` are the kinds and names of the
    store's entries that the data were read from. `crop_ratio` is the share of a photograph's centre that is measured
    on; 1 also where the images are used as they are. `kept` holds what was worked out from the three splits.
    """

    train: ImageSet
    pool: ImageSet
    val: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    content: str
    entries: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    unlabelled_content: str | None
    crop_ratio: float

    def __init__(self, dataset: Dataset) -> None:
        self.kept = Kept()
        self.train, self.val, self.test = dataset.train, dataset.val, dataset.test
        self.pool = dataset.train if dataset.pool is None else dataset.pool
        self.unlabelled_content = dataset.unlabelled_content
        self.classes, self.notes = dataset.classes, dataset.notes
        self.content, self.entries, self.choices = dataset.content, dataset.entries, dataset.choices
        self.crop_ratio = dataset.crop_ratio

    @property
    def shape(self) -> ImageShape:
        """What a network for these data takes and gives."""
        channels, *image_size = self.train.shape
        return ImageShape(channels, (image_size[0], image_size[1]), len(self.classes))

    @property
    def num_unlabelled(self) -> int:
        """How many images have no target."""
        return len(self.pool) - len(self.train)

    def num_samples(self, views: ViewChoice) -> int:
        """How many samples these views are of."""
        return len(self.pool if views.with_unlabelled else self.train)

    @property
    @abstractmethod
    def is_augmented(self) -> bool:
        """Whether an augmentation changes the training images; otherwise their views are all the same."""

    @abstractmethod
    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the training images, in 0..1, without augmentation."""

    @abstractmethod
    def batches(self, views: ViewChoice, batch_size: int, seed: int) -> Batches:
        """The training samples in batches, in the order of `seed` and in the chosen views."""

    @abstractmethod
    def view_in_order(self, views: ViewChoice, view: int, chunk_size: int, part: slice = EVERYTHING) -> Iterator[Batch]:
        """One view of all training samples, in the order of the pool; or a part of these chunks."""

    @abstractmethod
    def render(self, views: ViewChoice, indices: Tensor, view: int) -> Tensor:
        """One view of a few training samples (N,), given on the CPU, as float32 (N, C, H, W) in 0..1: for a picture."""


class MemoryFeed(Feed):
    """A feed whose images all lie in memory, on the device that trains, where they are also augmented."""

    train: Split
    pool: Split

    def __init__(self, dataset: Dataset, augmentations: Mapping[str, Augmentation]) -> None:
        super().__init__(dataset)
        assert isinstance(self.train, Split)
        assert isinstance(self.pool, Split)
        self.augmentations = augmentations

    @property
    def is_augmented(self) -> bool:
        """See Feed."""
        return not all(step.does_nothing for step in self.augmentations.values())

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """See Feed."""
        return channel_statistics(self.train.images)

    def batches(self, views: ViewChoice, batch_size: int, seed: int) -> Batches:
        """See Feed."""
        return MemoryBatches(self._views(views), batch_size, seed)

    def view_in_order(self, views: ViewChoice, view: int, chunk_size: int, part: slice = EVERYTHING) -> Iterator[Batch]:
        """See Feed."""
        rendered = self._views(views)
        for step, indices in enumerate(torch.split(torch.arange(self.num_samples(views)), chunk_size)[part]):
            yield rendered.batch(indices, view, step=step)

    def render(self, views: ViewChoice, indices: Tensor, view: int) -> Tensor:
        """See Feed."""
        return self._views(views).render(indices, view)[0]

    def _views(self, choice: ViewChoice) -> Views:
        return Views(self.pool if choice.with_unlabelled else self.train, self.augmentations, choice)


class MemoryBatches(Batches):
    """Batches of a split that lies in memory."""

    def __init__(self, views: Views, batch_size: int, seed: int) -> None:
        super().__init__(views.split.targets, batch_size, seed)
        self.views = views

    @property
    def steps_at_once(self) -> int:
        """The steps whose batches are rendered together: several on a GPU, which small batches leave idle.

        A view of a sample does not depend on the batch that it is rendered in.
        """
        is_gpu = self.views.split.targets.device.type == "cuda"
        return max(RENDERED // (self.batch_size * math.prod(self.views.split.shape)), 1) if is_gpu else 1

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Batches."""
        view, own = self.views.choice.view_of(epoch), self.own_shares(self.order(epoch))
        starts = [0, *accumulate(len(indices) for indices in own)]
        indices = torch.cat(own)
        for first in range(first_step, self.num_steps, self.steps_at_once):
            last = min(first + self.steps_at_once, self.num_steps)
            several = self.views.batch(indices[starts[first] : starts[last]], view, epoch)
            for step in range(first, last):
                begin, end = (starts[each] - starts[first] for each in (step, step + 1))
                yield several.part(slice(begin, end), step)
