"""A feed of photographs that need not fit into memory: workers decode and crop, the rest of a view is batched."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_run.data.batches import Batch, Batches
from distill_run.data.feed import Feed
from distill_run.data.packing import Unpacked
from distill_run.data.photo_split import PhotoSplit, Server
from distill_run.data.photos import Order
from distill_run.data.source import EVERYTHING
from distill_run.data.splits import Dataset
from distill_run.data.view_steps import ViewSteps
from distill_run.data.views import Rendering, ViewChoice
from distill_run.data.window import RandomResizedCrop


class WorkerFeed(Feed):
    """Serves the photographs of a PhotoSplit; views, order and batches are those that a feed in memory serves.

    `statistics` are the mean and the standard deviation of each channel.
    """

    train: PhotoSplit
    pool: PhotoSplit

    def __init__(self, dataset: Dataset, steps: ViewSteps, statistics: tuple[list[float], list[float]]) -> None:
        super().__init__(dataset)
        assert isinstance(self.train, PhotoSplit)
        assert isinstance(self.pool, PhotoSplit)
        self.steps = steps
        self.statistics = statistics

    @property
    def is_augmented(self) -> bool:
        """See Feed."""
        return not self.steps.do_nothing

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """See Feed."""
        return self.statistics

    def batches(self, views: ViewChoice, batch_size: int, seed: int) -> Batches:
        """See Feed."""
        return WorkerBatches(PhotoViews(self._samples(views), self.steps, views), batch_size, seed)

    def view_in_order(self, views: ViewChoice, view: int, chunk_size: int, part: slice = EVERYTHING) -> Iterator[Batch]:
        """See Feed."""
        chunks = torch.split(torch.arange(self.num_samples(views)), chunk_size)[part]
        return PhotoViews(self._samples(views), self.steps, views).serve(chunks, view)

    def render(self, views: ViewChoice, indices: Tensor, view: int) -> Tensor:
        """See Feed."""
        here = dataclasses.replace(self._samples(views), workers=0)
        return next(PhotoViews(here, self.steps, views).serve([indices], view)).images

    def _samples(self, choice: ViewChoice) -> PhotoSplit:
        return self.pool if choice.with_unlabelled else self.train


class WorkerBatches(Batches):
    """Batches of photographs that workers render."""

    def __init__(self, views: "PhotoViews", batch_size: int, seed: int) -> None:
        super().__init__(views.split.targets, batch_size, seed)
        self.views = views

    def close(self) -> None:
        """See Batches."""
        self.views.server.close()

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Batches."""
        batches = self.own_shares(self.order(epoch))[first_step:]
        return self.views.serve(batches, self.views.choice.view_of(epoch), epoch, first_step)


class PhotoViews:
    """Renders the views of photographs, with workers of its own."""

    def __init__(self, split: PhotoSplit, steps: ViewSteps, choice: ViewChoice) -> None:
        self.split = split
        self.choice = choice
        self.rendering = Rendering(split.targets, split.image_size, steps.augmentations, choice)
        self.orders = ViewOrders(split, steps.window, self.rendering)
        self.server = Server(split)

    def serve(self, batches: Sequence[Tensor], view: int, epoch: int = 1, first_step: int = 0) -> Iterator[Batch]:
        """The samples of each batch (N,), given on the CPU, in one view."""
        served = self.server.serve(self.orders.of_all(batches, view))
        for step, (indices, images) in enumerate(zip(batches, served, strict=True), first_step):
            yield self._finish(indices, images, view, epoch, step)

    def _finish(self, indices: Tensor, images: list[Tensor], view: int, epoch: int, step: int) -> Batch:
        """The batch, from its stored images and those of its partners."""
        mixture = self.rendering.mixture(indices, view)
        rendered = self.rendering.render(Unpacked(images[0]), indices, view)
        if mixture is not None:
            rendered = mixture.mix(rendered, self.rendering.render(Unpacked(images[1]), mixture.partners, view))
        return self.rendering.batch(rendered, mixture, indices, view, epoch, step)


@dataclass(frozen=True)
class ViewOrders:
    """What workers are to render for a view; it does not know the server, so that no circle keeps old workers alive."""

    split: PhotoSplit
    window: RandomResizedCrop | None
    rendering: Rendering

    def of_all(self, batches: Sequence[Tensor], view: int) -> Iterator[list[Order]]:
        """Of each batch (N,): its samples, and their partners if they are mixed."""
        for indices in batches:
            partners = self.rendering.partners(indices, view)
            yield [self._of(each, view) for each in (indices, partners) if each is not None]

    def _of(self, indices: Tensor, view: int) -> Order:
        if self.window is None:
            return Order(indices, None)
        sizes = self.split.photos.sizes[indices.numpy()]
        return Order(indices, self.window.boxes(indices, sizes, self.rendering.choice.seed, view))
