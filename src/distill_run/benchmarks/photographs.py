"""Images a second of our feed of photographs and of torchvision's ImageFolder, over the same files, in turn.

    python -m distill_run.benchmarks.photographs [--sizes 500x375,4000x3000] [--images 400] [--small 0] [override ...]

Both decode JPEG files in worker processes, cut random windows out of them, resize these to 224 pixels and mirror half
of them; the usual way (ImageFolder, RandomResizedCrop, DataLoader) then normalises them in the workers, ours sends
bytes and leaves the rest to the process that trains. With --small N, a folder of N small files is also listed, read
once and streamed, and the memory of all processes is printed.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.feed import Feed
from distill_run.data.opening import Feeds
from distill_run.data.views import ViewChoice
from distill_run.listener import NOBODY
from distill_run.quoting import override
from distill_run.store import Store
from distill_run.units import counted, duration, quantity

IMAGE_SIZE, BATCH_SIZE, NUM_ROUNDS = 224, 32, 3
LEAST_IMAGES = 8 * BATCH_SIZE  # more than what is rendered ahead while workers start
KEYS = ("dataset=image_folder", "dataset.memory_gigabytes=0", "dataset.augment.crop.padding=0")
VIEWS = ViewChoice(seed=0, num_views=None, mixup=0.0, cutmix=0.0)


def main(arguments: Sequence[str]) -> None:
    """Print images a second of both ways for each size, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m distill_run.benchmarks.photographs", allow_abbrev=False)
    parser.add_argument("--sizes", default="500x375,4000x3000", help="of the photographs, WIDTHxHEIGHT")
    parser.add_argument("--images", type=int, default=400, help="of the first size; of larger ones, fewer")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--small", type=int, default=0, metavar="N", help="also stream a folder of N small files")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    overrides = [*options.overrides, f"dataset.workers={options.workers}"]
    with tempfile.TemporaryDirectory() as name:
        for text in options.sizes.split(","):
            width, height = map(int, text.split("x"))
            num = max(options.images * 500 * 375 // max(width * height, 500 * 375), LEAST_IMAGES)
            folder = Path(name) / text
            make_photographs(folder, num, (width, height), num_different=8)
            compare(console, folder, text, overrides, options.workers)
        if options.small:
            folder = Path(name) / "small"
            make_photographs(folder, options.small, (64, 64), num_different=64)
            stream(console, folder, [*overrides, "dataset.image_size=64"])


def make_photographs(folder: Path, num: int, size: tuple[int, int], num_different: int) -> None:
    """JPEG files of two classes, with details at all scales as photographs have; only so many differ."""
    generator, different = np.random.default_rng(0), []
    for _ in range(num_different):
        pixels = np.zeros((size[1], size[0], 3), dtype=np.float32)
        for side in (4, 16, 64, 256):
            noise = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
            pixels += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 4
        different.append(Image.fromarray(pixels.astype(np.uint8)))
    for target in ("a", "b"):
        (folder / target).mkdir(parents=True)
    paths = []
    for index, image in enumerate(different):
        paths.append(folder / "ab"[index % 2] / f"{index:06}.jpg")
        image.save(paths[-1], quality=90)
    contents = [path.read_bytes() for path in paths]
    for index in range(num_different, num):
        (folder / "ab"[index % 2] / f"{index:06}.jpg").write_bytes(contents[index % num_different])


def compare(console: Console, folder: Path, size: str, overrides: Sequence[str], num_workers: int) -> None:
    """Time an epoch of both ways in turn, several times, without the time in which workers start."""
    with tempfile.TemporaryDirectory() as store:
        feed = open_feed(folder, Path(store), [*overrides, f"dataset.image_size={IMAGE_SIZE}"])
        batches = feed.batches(VIEWS, BATCH_SIZE, seed=0)
        usual = usual_loader(folder, num_workers)
        rounds = [
            (_speed(iter(usual)), _speed(batch.images for batch in batches.epoch(number + 1)))
            for number in range(NUM_ROUNDS)
        ]
    theirs, ours = (median(speeds) for speeds in zip(*rounds, strict=True))
    ratio = median(ours / theirs for theirs, ours in rounds)
    console.note(f"{size}, {counted(num_workers, 'worker')}: images a second, and for each worker")
    console.note(f"  torchvision  {theirs:>8,.0f} {theirs / max(num_workers, 1):>8,.0f}")
    console.note(f"  distill-run  {ours:>8,.0f} {ours / max(num_workers, 1):>8,.0f}   ratio {ratio:.2f}")


def open_feed(folder: Path, store: Path, overrides: Sequence[str]) -> Feed:
    """The feed of a folder, which reads its files in workers."""
    window = "dataset.augment.random_resized_crop.scale=[0.08,1.0]"
    settings = compose_config([*KEYS, override("dataset.root", folder), window, *overrides]).dataset
    return Feeds().open(settings, Builder(), torch.device("cpu"), Store(store, NOBODY)).feed


def usual_loader(folder: Path, num_workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """What torchvision's own example for ImageNet does."""
    steps = transforms.Compose(
        [
            transforms.RandomResizedCrop(IMAGE_SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), steps),
        BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def stream(console: Console, folder: Path, overrides: Sequence[str]) -> None:
    """List, read and stream a folder; print the seconds of each and the largest memory of the processes."""
    with tempfile.TemporaryDirectory() as store:
        start = time.perf_counter()
        feed = open_feed(folder, Path(store), overrides)
        opened = time.perf_counter() - start
        start = time.perf_counter()
        again = open_feed(folder, Path(store), overrides)
        listed = time.perf_counter() - start
        speed = _speed(batch.images for batch in again.batches(VIEWS, 128, seed=0).epoch(1))
        del feed, again
    console.note(
        f"{folder.name}: opened in {duration(opened)}, again in {duration(listed)}; {speed:,.0f} images a second"
    )
    for who, name in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "the largest worker")):
        console.note(f"  peak memory of {name}: {quantity(1024 * resource.getrusage(who).ru_maxrss)}B")


def _speed(batches: Iterator[Tensor | list[Tensor]]) -> float:
    """Images a second, from the second batch on: the first waits for the workers to start."""
    next(batches)
    start, num_images = time.perf_counter(), 0
    for batch in batches:
        num_images += len(batch[0] if isinstance(batch, list) else batch)
    return num_images / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
