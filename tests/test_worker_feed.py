"""Photographs served by workers: the batches, the views and the trained weights are those of the feed in memory."""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import chi2, chisquare, ks_2samp
from torch import Tensor
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop
from torchvision.transforms.v2.functional import resized_crop

from conftest import TINY
from distill_run import load_network
from distill_run.config.schema import DatasetSettings
from distill_run.config.settings import compose_config
from distill_run.data import photo_split
from distill_run.data.batches import Batch
from distill_run.data.feed import Feed, MemoryFeed
from distill_run.data.photo_split import _begin_worker
from distill_run.data.photos import KeptPhotos
from distill_run.data.views import ViewChoice
from distill_run.data.window import RandomResizedCrop
from distill_run.data.worker_feed import WorkerFeed
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import Interrupted
from distill_run.pipeline import run
from distill_run.stages.watcher import StageFacts, Watcher
from helpers import assert_same_batch, folder_settings, message_of, open_feed

PLAIN, MIXED = ViewChoice(3, 4, 0.0, 0.0), ViewChoice(3, 4, 0.4, 1.0)
AUGMENTED = ("dataset.augment.crop.padding=1", "dataset.augment.flip.enabled=true", "dataset.augment.cutout.size=2")
WINDOW = "dataset.augment.random_resized_crop.scale=[0.2,1.0]"


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 photographs of many sizes in two classes, jpg and png."""
    folder, generator = tmp_path_factory.mktemp("album"), np.random.default_rng(0)
    for index in range(50):
        height, width = generator.integers(12, 60, 2).tolist()
        pixels = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / ("day", "night")[index % 2] / f"{index:02}.{'jpg' if index % 3 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return folder


def settings_of(album: Path, *overrides: str) -> DatasetSettings:
    return folder_settings(album, "dataset.image_size=8", *overrides)


def everything(feed: Feed, views: ViewChoice) -> Iterator[Batch]:
    """Two epochs, the second from its third step on, and a view in order."""
    batches = feed.batches(views, 7, seed=1)
    yield from batches.epoch(1)
    yield from batches.epoch(2, first_step=2)
    yield from feed.view_in_order(views, 1, 11)


def assert_equal(left: Feed, right: Feed, views: ViewChoice) -> None:
    for one, other in zip(everything(left, views), everything(right, views), strict=True):
        assert_same_batch(one, other)
    for name in ("train", "val", "test"):
        ones, others = getattr(left, name), getattr(right, name)
        assert torch.equal(ones.targets, others.targets)
        assert [ones.name(index) for index in range(len(ones))] == [others.name(index) for index in range(len(others))]
        assert torch.equal(torch.cat(list(ones.chunks(5))), torch.cat(list(others.chunks(4))))
        assert torch.equal(ones.image(2), others.image(2))
    indices = torch.tensor([3, 1, 3])
    assert torch.equal(left.render(views, indices, 2), right.render(views, indices, 2))
    assert (left.content, left.shape, left.is_augmented) == (right.content, right.shape, right.is_augmented)
    assert left.channel_statistics() == right.channel_statistics()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("views", [PLAIN, MIXED])
def test_workers_serve_what_memory_serves(album: Path, tmp_path: Path, workers: int, views: ViewChoice) -> None:
    settings = settings_of(album, *AUGMENTED)
    memory = open_feed(settings, tmp_path)
    read = open_feed(settings, tmp_path, memory_gigabytes=0, workers=workers)
    assert isinstance(memory, MemoryFeed)
    assert isinstance(read, WorkerFeed)
    assert_equal(memory, read, views)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views", [PLAIN, MIXED])
def test_windows_are_the_same_from_memory_and_from_files(
    album: Path, tmp_path: Path, workers: int, views: ViewChoice
) -> None:
    settings = settings_of(album, *AUGMENTED, WINDOW)
    kept = open_feed(settings, tmp_path)
    read = open_feed(settings, tmp_path, memory_gigabytes=0, workers=workers)
    assert isinstance(kept, WorkerFeed)
    assert isinstance(kept.train.photos, KeptPhotos)
    assert_equal(kept, read, views)


def test_an_epoch_that_is_left_does_not_disturb_the_next(album: Path, tmp_path: Path) -> None:
    feed = open_feed(settings_of(album), tmp_path, memory_gigabytes=0, workers=2)
    batches = feed.batches(PLAIN, 5, seed=0)
    whole = [batch.images for batch in batches.epoch(2)]
    next(batches.epoch(1))
    in_order = feed.view_in_order(PLAIN, 0, 9)
    left = batches.epoch(2)
    first = next(left).images
    others = [batch.images for batch in in_order]  # the bank fills a view while an epoch goes on
    assert len(others) == 4
    assert torch.equal(first, whole[0])
    assert all(torch.equal(ours.images, theirs) for ours, theirs in zip(left, whole[1:], strict=True))


def test_a_file_that_is_gone_or_replaced_in_the_middle_of_an_epoch_is_named(album: Path, tmp_path: Path) -> None:
    copy = tmp_path / "album"
    for path in album.rglob("*.*"):
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    feed = open_feed(settings_of(copy), tmp_path / "store", memory_gigabytes=0, workers=1)
    gone = copy / feed.train.name(4)
    gone.unlink()
    remedy = "\n  mend the file, then go on with resume=RUN_FOLDER"
    text = message_of(list, feed.batches(PLAIN, 5, seed=0).epoch(1))
    assert text == f"{gone} cannot be read any more: No such file or directory{remedy}"
    gone.write_bytes(b"P6 100000 100000 255\n")  # the size that a decompression bomb claims
    text = message_of(list, feed.batches(PLAIN, 5, seed=0).epoch(1))
    limit = "Image size (10000000000 pixels) exceeds limit of 178956970 pixels"
    assert text == f"{gone} cannot be read any more: {limit}{remedy}"


def test_images_of_a_dataset_in_memory_have_windows_too(tmp_path: Path) -> None:
    digits = compose_config(["dataset.image_size=8", "dataset.augment.random_resized_crop.scale=[0.5,0.5]"])
    feed = open_feed(digits.dataset, tmp_path)
    assert isinstance(feed, WorkerFeed)
    batch = next(feed.batches(PLAIN, 32, seed=0).epoch(1))
    assert batch.images.shape == (32, 1, 8, 8)
    box = RandomResizedCrop(scale=[0.5, 0.5], ratio=[0.75, 4 / 3], shorter_side=None).boxes(
        batch.indices, np.full((32, 2), 8), 3, 0
    )[5]
    left, top, right, bottom = map(int, box)
    stored = feed.train.image(int(batch.indices[5]))
    expected = resized_crop(stored, top, left, bottom - top, right - left, [8, 8], antialias=True)
    assert torch.equal(batch.images[5], expected.float() / 255)


def windows(
    height: int, width: int, num: int = 10_000, **arguments: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As left, top, width, height: ours, and those of torchvision."""
    chosen: dict[str, Any] = {"scale": [0.08, 1.0], "ratio": [0.75, 4 / 3], **arguments}
    ours = RandomResizedCrop(**chosen, shorter_side=None).boxes(
        torch.arange(num), np.full((num, 2), (height, width)), seed=0, view=0
    )
    torch.manual_seed(0)
    canvas = torch.empty(3, height, width)
    theirs = [TorchvisionCrop.get_params(canvas, chosen["scale"], chosen["ratio"]) for _ in range(num)]
    top, left, high, wide = np.array(theirs, dtype=float).T
    return np.column_stack([ours[:, 0], ours[:, 1], ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]]), np.column_stack(
        [left, top, wide, high]
    )


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (200, 900)])
def test_windows_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Place and size by Kolmogorov and Smirnov's test, for photographs with room and for wide ones without."""
    ours, theirs = windows(height, width)
    assert (ours[:, 0] >= 0).all()
    assert (ours[:, 1] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()
    areas = [found[:, 2] * found[:, 3] for found in (ours, theirs)]
    assert ks_2samp(*areas).pvalue > 0.001
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001


def test_a_window_that_never_fits_is_the_centre() -> None:
    """Of 10 x 100 pixels, no window of the allowed proportions has all the area: the middle 10 x 13 are taken."""
    ours, theirs = windows(10, 100, num=5, scale=[1.0, 1.0])
    np.testing.assert_array_equal(ours, theirs)
    assert ours.tolist() == [[43.0, 0.0, 13.0, 10.0]] * 5


def test_windows_do_not_depend_on_the_batch_and_differ_by_view_and_sample() -> None:
    window, sizes = RandomResizedCrop(scale=[0.1, 0.9], ratio=[0.5, 2.0], shorter_side=None), np.full((9, 2), 50)
    whole = window.boxes(torch.arange(9), sizes, 1, 2)
    order = torch.tensor([4, 0, 8])
    np.testing.assert_array_equal(window.boxes(order, sizes[:3], 1, 2), whole[[4, 0, 8]])
    others = [window.boxes(torch.arange(9), sizes, seed, view) for seed, view in ((1, 2), (1, 3), (2, 2))]
    assert len({box.tobytes() for boxes in others for box in boxes}) == 27


def test_the_place_of_a_window_is_uniform() -> None:
    """A window of half the sides has 26 places in each direction, all equally likely."""
    boxes = RandomResizedCrop(scale=[0.25, 0.25], ratio=[1.0, 1.0], shorter_side=None).boxes(
        torch.arange(20_000), np.full((20_000, 2), 50), 0, 0
    )
    for column in (0, 1):
        assert chisquare(np.bincount(boxes[:, column].astype(int), minlength=26)).pvalue > 0.001
    assert chi2.sf(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1] ** 2 * 20_000, 1) > 0.001


class _StopAtStep(Watcher):
    """Asks a training for a stop."""

    def __init__(self, stop: StopRequest, stage: str, step: int) -> None:
        self.stop, self.stage, self.step, self.current = stop, stage, step, ""

    def stage_begun(self, stage: StageFacts) -> None:
        self.current = stage.name

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        if self.current == self.stage and (epoch, step) == (2, self.step):
            self.stop.request(Interrupted())


def test_the_weights_are_those_of_the_feed_in_memory_also_across_an_interruption(album: Path, tmp_path: Path) -> None:
    """The same run from memory, and from files by two workers but stopped inside the student's second epoch."""
    words = [word for word in TINY if not word.startswith(("dataset.", "training.student.batch"))]
    words += ["dataset=image_folder", f"dataset.root={album}", "dataset.image_size=8", "baseline=false"]
    words += ["training.teacher.batch_size=8", "training.student.batch_size=8", "training.student.mixup=0.3"]
    read = [*words, "dataset.memory_gigabytes=0", "dataset.workers=2", f"store_dir={tmp_path / 'read'}"]
    run(compose_config([*words, f"store_dir={tmp_path / 'memory'}"]), tmp_path / "whole")
    with StopRequest() as stop, pytest.raises(Interrupted):
        run(compose_config(read), tmp_path / "cut", watchers=[_StopAtStep(stop, "student", 3)], stop=stop)
    run(dataclasses.replace(compose_config(read), resume=str(tmp_path / "cut")), tmp_path / "cut")
    whole, cut = (load_network(tmp_path / name / "checkpoints" / "student.pt") for name in ("whole", "cut"))
    for (name, ours), theirs in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def _work_on(result: Connection) -> None:
    _begin_worker(0)
    result.send("begun")
    while True:
        result.send(result.recv())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_signal_to_all_processes_leaves_the_workers_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_split, "WORKER_SECONDS", 1)
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_work_on, args=(theirs,))
    worker.start()
    assert ours.recv() == "begun"
    assert worker.pid is not None
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(worker.pid, number)
        ours.send(number)
        assert ours.recv() == number
    worker.join()
    assert worker.exitcode == 0
