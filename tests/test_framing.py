"""What photographs become: the size, the share of the centre, the window, and where they are kept; and what is said."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.data.feed import MemoryFeed
from distill_run.data.framing import PublishedCrop
from distill_run.data.opening import Feeds, Opened
from distill_run.data.photos import KeptPhotos, ReadPhotos
from distill_run.data.worker_feed import WorkerFeed
from helpers import folder_settings, message_of, open_feed, open_store


def photographs(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A folder of two classes, with ten photographs of each of the sizes (width, height) in both."""
    for target in ("a", "b"):
        (folder / target).mkdir(parents=True)
        for index in range(10 * len(sizes)):
            Image.new("RGB", sizes[index % len(sizes)], (index, 7, 9)).save(folder / target / f"{index:03}.jpg")
    return folder


def opened(folder: Path, *overrides: str, published: PublishedCrop | None = None) -> Opened:
    settings = compose_config(["dataset=image_folder", f"dataset.root='{folder}'", *overrides]).dataset
    return Feeds().open(settings, Builder(), torch.device("cpu"), open_store(folder / ".store"), published)


def test_small_images_of_one_size_are_used_as_they_are(tmp_path: Path) -> None:
    feed, augment = opened(photographs(tmp_path, (40, 30)), "dataset.memory_gigabytes=2")
    assert isinstance(feed, MemoryFeed)
    assert feed.shape.image_size == (30, 40)
    assert feed.choices == ("all images are kept in memory: 72kB of 2GB at most",)  # 20 * 40 * 30 * 3
    assert augment["random_resized_crop"]["scale"] is None
    assert augment["crop"]["padding"] == 4


def test_photographs_of_many_sizes_get_one_that_half_of_them_have(tmp_path: Path) -> None:
    """The shorter sides are 60, 50 and 300; half are at least 60, and 48 is the largest choice below."""
    feed, augment = opened(photographs(tmp_path, (80, 60), (50, 90), (300, 400)))
    assert isinstance(feed, WorkerFeed)
    assert isinstance(feed.train.photos, KeptPhotos)
    assert feed.shape.image_size == (48, 48)
    assert feed.choices[:-1] == (
        "images: 48x48, from photographs of 50x90 to 300x400 pixels",
        "augmentation: windows of 35% to 100% of a photograph instead of crop "
        "(dataset.augment.random_resized_crop.scale)",
    )
    assert augment["random_resized_crop"]["scale"] == [0.35, 1.0]
    assert augment["crop"]["padding"] == 0


def test_large_photographs_get_a_size_that_a_laptop_trains_on(tmp_path: Path) -> None:
    feed, _ = opened(photographs(tmp_path, (640, 480)))
    assert feed.shape.image_size == (96, 96)
    assert feed.choices[0] == (
        "images: 96x96, from photographs of 640x480 to 640x480 pixels; "
        "dataset.image_size=224 shows more detail and takes longer"
    )


def test_a_pretrained_teacher_brings_its_size_and_its_crop(tmp_path: Path) -> None:
    published = PublishedCrop("resnet50", (224, 224), 0.875)
    folder = photographs(tmp_path, (64, 48))
    feed, _ = opened(folder, published=published)
    assert feed.shape.image_size == (224, 224)
    assert feed.choices[:2] == (
        "images: 224x224, the size that resnet50 was trained with",
        "the centre, 0.875 of the sides, is measured on, as for resnet50",
    )
    feed, _ = opened(folder, "dataset.image_size=32", "dataset.crop_ratio=1.0", published=published)
    assert feed.shape.image_size == (32, 32)
    assert not any("resnet50" in choice for choice in feed.choices)


def test_what_does_not_fit_into_memory_is_read_again_and_that_is_said(tmp_path: Path) -> None:
    """20 photographs of 32x32x3 bytes: test has 4, validation 2, train 14; there is room for test and validation."""
    folder = photographs(tmp_path, (32, 32))
    feed = open_feed(folder_settings(folder, "dataset.workers=0"), tmp_path / ".store", memory_gigabytes=19e-6)
    assert isinstance(feed, WorkerFeed)
    assert isinstance(feed.train.photos, ReadPhotos)
    assert isinstance(feed.val, type(feed.test))
    assert feed.choices == (
        "train: 14 photographs take 43kB of memory, 568B are left for them: the process that trains reads them again "
        "in every epoch (dataset.memory_gigabytes, dataset.workers)",
    )


def test_a_size_for_images_that_have_one_is_refused(tmp_path: Path) -> None:
    settings = compose_config([]).dataset
    assert message_of(open_feed, settings, tmp_path, crop_ratio=0.5) == (
        "dataset.crop_ratio=0.5 is for photographs; this dataset has images of 16x16\n"
        "  leave it out; a teacher of torchvision or timm resizes them, as in teacher.input_size=64"
    )


STREAM = """
import resource, sys
from pathlib import Path
from distill_run.benchmarks.photographs import VIEWS, open_feed
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
feed = open_feed(Path(sys.argv[1]), Path(sys.argv[2]), ["dataset.image_size=64", sys.argv[3]])
for batch in feed.batches(VIEWS, 16, seed=0).epoch(1):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_is_bounded_while_photographs_stream(tmp_path: Path) -> None:
    """300 photographs of 3 MB each, decoded whole: 900 MB if they were kept, a block of 256 of them while reading."""
    photographs(tmp_path / "photos", *[(1000, 1000)] * 15)
    whole = "dataset.augment.random_resized_crop.shorter_side=1000"
    command = [sys.executable, "-c", STREAM, str(tmp_path / "photos"), str(tmp_path / "store"), whole]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 300_000
