"""From a source to the three splits of an experiment: train learns, val selects, test is read once at the end."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from distill_run.data.duplicates import digests, duplicate_notes
from distill_run.data.source import MovableSet, Source, Split
from distill_run.errors import user_error


class Labelled(Protocol):
    """Images, read or not, with their targets."""

    @property
    def targets(self) -> Tensor:
        """The class (N,) of each image."""


class Divisible(Labelled, Protocol):
    """Images with their targets that can be divided."""

    def __len__(self) -> int:
        """How many images there are."""

    def select(self, indices: Tensor) -> Self:
        """The images at `indices` (M,), in their order."""


S = TypeVar("S", bound=Divisible)


@dataclass(frozen=True)
class Dataset:
    """Three splits that share classes and image shape.

    `choices` are sentences on what was decided about photographs: their size, the augmentation, where they are kept.
    `content` is a sha256 that changes with every image and target. For `notes` and `entries` see Source, for `pool`,
    `unlabelled_content` and `crop_ratio` see Feed.
    """

    train: MovableSet
    val: MovableSet
    test: MovableSet
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    content: str
    entries: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] = ()
    pool: MovableSet | None = None
    unlabelled_content: str | None = None
    crop_ratio: float = 1.0

    def to(self, device: torch.device) -> "Dataset":
        """The same dataset on another device."""
        pool = None if self.pool is None else self.pool.to(device)
        return replace(self, train=self.train.to(device), pool=pool, val=self.val.to(device), test=self.test.to(device))


@dataclass(frozen=True)
class Fractions:
    """How the training images of a source are divided: the shares of each class, and the seed that chooses images.

    `test` is cut off first, then `val` of what is left, each only if the source brings no such split; `train` of the
    rest is kept.
    """

    test: float
    val: float
    train: float
    seed: int


@dataclass(frozen=True)
class Division(Generic[S]):
    """A source's images, divided into "train", "val" and "test".

    `kept` are the indices of the images of the source's train that stay there, `cuts` those of the other splits that
    were cut from it.
    """

    splits: Mapping[str, S]
    kept: Tensor
    cuts: Mapping[str, Tensor]


def divide(train: S, brought: Mapping[str, S | None], num_classes: int, fractions: Fractions) -> Division[S]:
    """The three splits of a source; "test" and "val" are cut from `train` where none is brought.

    The cuts are stratified, and functions of the targets and `fractions` alone. Raises UserError for a split that is
    empty or has targets outside the classes.
    """
    kept, cuts, seed = torch.arange(len(train)), {}, fractions.seed
    for name, fraction in (("test", fractions.test), ("val", fractions.val)):
        if brought[name] is None:
            rest, cut = stratified_cut(train.targets[kept], fraction, seed)
            kept, cuts[name] = kept[rest], kept[cut]
    if fractions.train < 1:
        rest, _ = stratified_cut(train.targets[kept], 1 - fractions.train, seed)
        kept = kept[rest]
    splits = {"train": train if len(kept) == len(train) else train.select(kept)}
    for name in ("val", "test"):
        given = brought[name]
        splits[name] = train.select(cuts[name]) if given is None else given
    for name, split in splits.items():
        _check_targets(name, split.targets, num_classes)
    return Division(splits, kept, cuts)


def make_dataset(source: Source, fractions: Fractions) -> Dataset:
    """The three splits of a source whose images lie in memory, divided and checked.

    Raises UserError for a split that is empty, has another image shape than train or has targets outside the classes.
    """
    brought = {"val": source.val, "test": source.test}
    division = divide(source.train, brought, len(source.classes), fractions)
    splits = division.splits
    for name, split in splits.items():
        _check_shape(name, split, splits["train"])
    notes = [*source.notes, *division_notes(division, source.classes, fractions)]
    notes += duplicate_notes(digests(splits["train"].images), digests(splits["test"].images))
    parts = (splits["train"], splits["val"], splits["test"])
    return Dataset(*parts, source.classes, tuple(notes), _content_of_bytes(splits), source.entries)


def division_notes(division: Division[Any], classes: tuple[str, ...], fractions: Fractions) -> list[str]:
    """Sentences on splits that lack a class, and on a test split that had to be cut."""
    notes = _absent_classes(division.splits, classes)
    if "test" in division.cuts:
        notes.append(
            f"the dataset has no test split: {fractions.test:.0%} of each class are kept for the test, "
            f"by dataset.split_seed={fractions.seed}"
        )
    return notes


def stratified_cut(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of what is left and of what is cut off: `fraction` of each class, at least one image.

    A class with a single image is not cut.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    is_cut = torch.zeros(len(targets), dtype=torch.bool)
    by_class = order[targets[order].argsort(stable=True)]
    sizes = torch.unique(targets, return_counts=True)[1].tolist()
    for members in torch.split(by_class, sizes):
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_cut[members[:count]] = True
    return (~is_cut).nonzero().flatten(), is_cut.nonzero().flatten()


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), in units of 0..1, to 4 digits."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    return statistics_of(counts)


def statistics_of(counts: Tensor) -> tuple[list[float], list[float]]:
    """The same from how often each of the 256 values stands in each channel: counts (C, 256)."""
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double().cpu() / counts.sum(1, keepdim=True).double().cpu()
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp_min(1e-8).sqrt()
    return [round(m, 4) for m in mean.tolist()], [round(max(s, 1e-4), 4) for s in std.tolist()]


def class_counts(split: Labelled, num_classes: int) -> Tensor:
    """How many images of each class (K,) a split has."""
    return torch.bincount(split.targets.cpu(), minlength=num_classes)


def _check_targets(name: str, targets: Tensor, num_classes: int) -> None:
    if len(targets) == 0:
        raise user_error(f"the {name} split is empty", "every split needs at least one image")
    smallest, largest = int(targets.min()), int(targets.max())
    if smallest < 0 or largest >= num_classes:
        raise user_error(
            f"the {name} split has a target of {smallest if smallest < 0 else largest} for {num_classes} classes",
            f"targets run from 0 to {num_classes - 1}",
        )


def _check_shape(name: str, split: Split, train: Split) -> None:
    if split.shape != train.shape:
        raise user_error(
            f"{name} images have the shape {split.shape}, those of train {train.shape}",
            "all splits need one shape (channels, height, width)",
        )


def _absent_classes(splits: Mapping[str, Labelled], classes: tuple[str, ...]) -> list[str]:
    """A sentence for each split that has no image of some class."""
    notes = []
    for name, split in splits.items():
        counts = class_counts(split, len(classes))
        if absent := [classes[index] for index in (counts == 0).nonzero().flatten().tolist()]:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            notes.append(f"no {name} image of class {shown}")
    return notes


def _content_of_bytes(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {tuple(split.images.shape)}".encode())
        digest.update(split.images.cpu().contiguous().numpy().data)
        digest.update(split.targets.cpu().contiguous().numpy().data)
    return digest.hexdigest()
