"""What an exported file gives, beside what the network gives that it was written from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from distill_run.data.source import ImageSet
from distill_run.engine.timing import time_in_turn
from distill_run.report.chance import difference_interval, wilson_interval
from distill_run.report.figures import ExportReport

Run = Callable[[Tensor], Tensor]  # images (N, C, H, W) to logits (N, K)

CHUNK_SIZE = 64  # images at a time
BATCH_SIZES = (1, 64)  # whose time is taken


@dataclass(frozen=True)
class Compared:
    """Images (N, C, H, W) of bytes, with their targets (N,); None where they are not known."""

    images: Tensor
    targets: Tensor | None


def some_of(images: ImageSet, most: int | None) -> Compared:
    """Images of a split with their targets: all of them, or `most`, which are drawn at random and always the same."""
    chosen = torch.arange(len(images))
    if most is not None:
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:most].sort().values
    pixels = torch.stack([images.image(index) for index in chosen.tolist()])
    return Compared(pixels, images.targets.cpu()[chosen])


def photographs_of(images: Tensor, crop_ratio: float) -> Tensor:
    """Photographs whose centre, as a network with this crop ratio takes it, is these images (N, C, H, W) of bytes.

    The pixels around the centre repeat those at its edge. Where `crop_ratio` would need a fraction of a pixel there,
    the centre is a fraction of a pixel larger or smaller than the images.
    """
    if crop_ratio == 1:
        return images
    height, width = images.shape[2:]
    across, down = (round((size / crop_ratio - size) / 2) for size in (width, height))
    chunks = torch.split(images, CHUNK_SIZE)  # torch pads floats alone, which need four times the memory
    return torch.cat([pad(chunk.float(), (across, across, down, down), mode="replicate").byte() for chunk in chunks])


def is_exact(images: Tensor, crop_ratio: float) -> bool:
    """Whether `photographs_of` gives photographs whose centre is exactly these images."""
    return all((size / crop_ratio - size) % 2 == 0 for size in images.shape[2:])


@torch.no_grad()
def logits_of(run: Run, images: Tensor) -> Tensor:
    """The logits (N, K) of all images, worked out a few at a time."""
    return torch.cat([run(chunk) for chunk in torch.split(images, CHUNK_SIZE)])


def compare(file_format: str, wanted: Tensor, given: Tensor) -> ExportReport:
    """How far the logits (N, K) of an exported file lie from those of its network; its name and size are left open."""
    return ExportReport(
        format=file_format,
        file="",
        bytes=0,
        images=len(wanted),
        largest_difference=(given - wanted).abs().max().item(),
        decisions_changed=int((given.argmax(1) != wanted.argmax(1)).sum()),
    )


def accuracy_figures(given: Tensor, targets: Tensor, wanted: Tensor) -> dict[str, object]:
    """The test accuracy of logits (N, K) and its change from the `wanted` ones, each with its 95% interval."""
    right, reference = given.argmax(1) == targets, wanted.argmax(1) == targets
    accuracy = right.double().mean().item()
    return {
        "accuracy": accuracy,
        "accuracy_interval": wilson_interval(int(right.sum()), len(targets)),
        "change": accuracy - reference.double().mean().item(),
        "change_interval": difference_interval(right, reference),
    }


@torch.no_grad()
def latency(run: Run, images: Tensor) -> dict[str, float]:
    """The median milliseconds of a batch, by the number of its images."""
    calls = []
    for size in BATCH_SIZES:
        batch = images[torch.arange(size) % len(images)]
        calls.append(partial(run, batch))
    return {str(size): 1000 * timed.median for size, timed in zip(BATCH_SIZES, time_in_turn(calls), strict=True)}
