"""From a source to the three splits of an experiment: train learns, val selects, test is read once at the end."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_run.data.source import ImageSet, Source, Split
from distill_run.errors import user_error


@dataclass(frozen=True)
class Dataset:
    """Three splits that share classes and image shape.

    `content` is a sha256 that changes with every image and target. For `notes` and `entries` see Source.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    content: str
    entries: tuple[tuple[str, str], ...] = ()

    def to(self, device: torch.device) -> "Dataset":
        """The same dataset on another device."""
        parts = (self.train.to(device), self.val.to(device), self.test.to(device))
        return Dataset(*parts, self.classes, self.notes, self.content, self.entries)


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


def make_dataset(source: Source, fractions: Fractions) -> Dataset:
    """The three splits of a source, checked; test and validation are cut from train if the source brings none.

    The cuts are stratified, and functions of the targets and `fractions` alone. Raises UserError for a split that is
    empty, has another image shape than train or has targets outside the classes.
    """
    kept, cuts, seed = torch.arange(len(source.train)), {}, fractions.seed
    for name, brought, fraction in (("test", source.test, fractions.test), ("val", source.val, fractions.val)):
        if brought is None:
            rest, cut = stratified_cut(source.train.targets[kept], fraction, seed)
            kept, cuts[name] = kept[rest], kept[cut]
    if fractions.train < 1:
        rest, _ = stratified_cut(source.train.targets[kept], 1 - fractions.train, seed)
        kept = kept[rest]
    splits = {
        "train": source.train if len(kept) == len(source.train) else source.train.select(kept),
        "val": source.train.select(cuts["val"]) if source.val is None else source.val,
        "test": source.train.select(cuts["test"]) if source.test is None else source.test,
    }
    for name, split in splits.items():
        _check_split(name, split, splits["train"], len(source.classes))
    notes = [*source.notes, *_absent_classes(splits, source.classes)]
    if source.test is None:
        notes.append(
            f"the dataset has no test split: {fractions.test:.0%} of each class are kept for the test, "
            f"by dataset.split_seed={seed}"
        )
    content = _content_of_cut(source, kept, cuts) if source.digests else _content_of_bytes(splits)
    return Dataset(**splits, classes=source.classes, notes=tuple(notes), content=content, entries=source.entries)


def stratified_cut(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of what is left and of what is cut off: `fraction` of each class, at least one image.

    A class with a single image is not cut.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    is_cut = torch.zeros(len(targets), dtype=torch.bool)
    for target in torch.unique(targets):
        members = order[targets[order] == target]
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_cut[members[:count]] = True
    return (~is_cut).nonzero().flatten(), is_cut.nonzero().flatten()


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), in units of 0..1, to 4 digits."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double().cpu() / counts.sum(1, keepdim=True).double().cpu()
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp_min(1e-8).sqrt()
    return [round(m, 4) for m in mean.tolist()], [round(max(s, 1e-4), 4) for s in std.tolist()]


def class_counts(split: ImageSet, num_classes: int) -> Tensor:
    """How many images of each class (K,) a split has."""
    return torch.bincount(split.targets.cpu(), minlength=num_classes)


def _check_split(name: str, split: Split, train: Split, num_classes: int) -> None:
    if len(split) == 0:
        raise user_error(f"the {name} split is empty", "every split needs at least one image")
    if split.images.shape[1:] != train.images.shape[1:]:
        raise user_error(
            f"{name} images have the shape {tuple(split.images.shape[1:])}, "
            f"those of train {tuple(train.images.shape[1:])}",
            "all splits need one shape (channels, height, width)",
        )
    smallest, largest = int(split.targets.min()), int(split.targets.max())
    if smallest < 0 or largest >= num_classes:
        raise user_error(
            f"the {name} split has a target of {smallest if smallest < 0 else largest} for {num_classes} classes",
            f"targets run from 0 to {num_classes - 1}",
        )


def _absent_classes(splits: dict[str, Split], classes: tuple[str, ...]) -> list[str]:
    """A sentence for each split that has no image of some class."""
    notes = []
    for name, split in splits.items():
        counts = class_counts(split, len(classes))
        if absent := [classes[index] for index in (counts == 0).nonzero().flatten().tolist()]:
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            notes.append(f"no {name} image of class {shown}")
    return notes


def _content_of_bytes(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {tuple(split.images.shape)}".encode())
        digest.update(split.images.cpu().contiguous().numpy().data)
        digest.update(split.targets.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _content_of_cut(source: Source, kept: Tensor, cuts: Mapping[str, Tensor]) -> str:
    """The content's hash from the digests that the source brings, and which training images went where."""
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        digest.update(f"{name} {source.digests.get(name)} ".encode())
    for indices in (kept, cuts.get("val", torch.arange(0)), *([cuts["test"]] if "test" in cuts else [])):
        digest.update(f"{len(indices)} ".encode())
        digest.update(indices.numpy().data)
    return digest.hexdigest()
