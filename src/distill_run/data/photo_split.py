"""Photographs with their targets as an image set: opened one by one, rendered in batches by worker processes."""

import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from distill_run.data.photos import Order, Photos, make_pool, render_all
from distill_run.data.source import EVERYTHING
from distill_run.errors import Mistake, UserError, first_line, user_error

# It is the user who wants more workers than there are cores.
warnings.filterwarnings("ignore", "This DataLoader will create")

PREFETCHED = 2  # batches of each worker that are rendered ahead
WORKER_SECONDS = 2  # that a worker goes on after SIGTERM


@dataclass(frozen=True)
class PhotoSplit:
    """Photographs, their targets (N,) on the device that trains, and their names: an ImageSet.

    Images have the size `image_size`. `workers` is the number of processes that render them; photographs that are kept
    in memory are rendered by threads instead.
    """

    photos: Photos
    targets: Tensor
    image_size: tuple[int, int]
    name_of: Callable[[int], str]
    workers: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """See ImageSet."""
        return self.photos.channels, *self.image_size

    def name(self, index: int) -> str:
        """See ImageSet."""
        return self.name_of(index)

    def to(self, device: torch.device) -> "PhotoSplit":
        """The same split, whose images are served on another device."""
        return replace(self, targets=self.targets.to(device))

    def chunks(self, size: int, part: slice = EVERYTHING) -> Iterator[Tensor]:
        """See ImageSet."""
        server = Server(self)
        indices = torch.split(torch.arange(len(self)), size)[part]
        for (images,) in server.serve((Order(chunk, None),) for chunk in indices):
            yield images.float() / 255

    def image(self, index: int) -> Tensor:
        """See ImageSet."""
        order = Order(torch.tensor([index]), None)
        return render_all(self.photos, order, self.image_size, None)[0].permute(2, 0, 1)


class Server:
    """Renders the photographs of a split in batches, ahead of their use, by worker processes that it keeps.

    The batches do not depend on the number of workers.
    """

    def __init__(self, split: PhotoSplit) -> None:
        self.split = split
        self.device = split.targets.device
        self.tasks = _Tasks()
        self.loader = self._make_loader()
        self.answers: Iterator[Answer] = iter(())

    def serve(self, tasks: Iterable[Sequence[Order]]) -> Iterator[list[Tensor]]:
        """The images of each task, uint8 (N, C, H, W) for each of its orders, on the device that trains.

        Raises UserError where a file cannot be read any more, or where a worker was killed.
        """
        self.tasks.current = tasks
        self.answers = iter(self.loader)
        while (answer := _next(self.answers)) is not None:
            if answer.mistake is not None:
                raise UserError([answer.mistake])
            yield [
                images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous() for images in answer.images
            ]

    def close(self) -> None:
        """End the workers, which end when nothing refers to them; `serve` starts new ones."""
        self.answers = iter(())
        self.loader = self._make_loader()

    def _make_loader(self) -> "DataLoader[Answer]":
        """A loader; its workers start when they are first asked for something."""
        num_workers = 0 if self.split.photos.is_kept else self.split.workers
        return DataLoader(
            _Renderer(self.split.photos, self.split.image_size, make_pool() if num_workers == 0 else None),
            batch_size=None,
            sampler=self.tasks,
            num_workers=num_workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=num_workers > 0,
            prefetch_factor=PREFETCHED if num_workers else None,
            worker_init_fn=_begin_worker,
        )


class _Tasks:
    """What a DataLoader asks for the tasks of its next epoch."""

    current: Iterable[Sequence[Order]] = ()

    def __iter__(self) -> Iterator[Sequence[Order]]:
        return iter(self.current)


class Answer(NamedTuple):
    """What a worker gives: images (N, H, W, C) for each order, or the reason why there are none."""

    images: list[Tensor]
    mistake: Mistake | None


class _Renderer(TorchDataset[Answer]):
    """What torch's DataLoader asks for the images of a task."""

    def __init__(self, photos: Photos, image_size: tuple[int, int], pool: ThreadPoolExecutor | None) -> None:
        self.photos = photos
        self.image_size = image_size
        self.pool = pool

    def __getitem__(self, task: Sequence[Order]) -> Answer:
        try:
            return Answer([render_all(self.photos, order, self.image_size, self.pool) for order in task], None)
        except (OSError, ValueError) as error:
            return Answer([], Mistake(first_line(error), "mend the file, then go on with resume=RUN_FOLDER"))


def _next(answers: Iterator[Answer]) -> Answer | None:
    try:
        return next(answers, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise user_error(
            f"a process that reads images has ended: {first_line(error)}",
            "memory may be short: write dataset.workers=1, or 0 to read in the process that trains",
        ) from error


def _begin_worker(number: int) -> None:  # noqa: ARG001
    """Leave signals to the process that trains, and the other cores to the other workers.

    A worker is a copy of that process, with what it does about signals, and with its objects: these are left alone,
    among them those of other workers. A cluster sends SIGTERM to all processes: the step in progress needs the images.
    """
    gc.freeze()
    for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))  # torch raises an error wherever it is for any other end
    torch.set_num_threads(1)
