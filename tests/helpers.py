"""Small things that several test files share: tiny networks, weights without a seed, reference arithmetic."""

import dataclasses
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from numpy.typing import NDArray
from torch import Tensor, nn

from distill_run.build import Builder
from distill_run.config.schema import DatasetSettings
from distill_run.config.settings import compose_config
from distill_run.data.augment import Augmentation, Crop, Cutout, Flip
from distill_run.data.batches import Batch
from distill_run.data.feed import Feed
from distill_run.data.opening import Feeds
from distill_run.data.source import Split
from distill_run.errors import UserError, show
from distill_run.listener import NOBODY
from distill_run.store import Store

Array = NDArray[np.float64]

SOFT = {
    "_target_": "distill_run.objectives.soft.SoftTargets", "temperature": 4.0, "alpha": 0.5, "weight": 1.0,
    "divergence": "forward", "standardize_logits": False,
}  # fmt: skip

# The same examples in every run: a property that fails today fails tomorrow.
examples = settings(deadline=None, max_examples=60, derandomize=True, database=None)
few_examples = settings(examples, max_examples=20)


def open_feed(settings: DatasetSettings, store_dir: Path, feeds: Feeds | None = None, **changes: Any) -> Feed:
    """The feed of a dataset on the CPU, with some of its settings changed."""
    changed = dataclasses.replace(settings, **changes)
    return (feeds or Feeds()).open(changed, Builder(), torch.device("cpu"), open_store(store_dir)).feed


def assert_same_batch(one: Batch, other: Batch) -> None:
    """Equal to the bit, with the epoch and the step in which they are served."""
    assert (one.view, one.epoch, one.step) == (other.view, other.epoch, other.step)
    for name in ("indices", "images", "targets", "partner_targets", "shares"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def open_store(store_dir: Path) -> Store:
    """A store that tells nobody."""
    return Store(store_dir, NOBODY)


def folder_settings(root: Path, *overrides: str) -> DatasetSettings:
    """The settings of an image folder, without augmentation unless the overrides say so."""
    plain = ["dataset.augment.random_resized_crop.scale=null", "dataset.augment.crop.padding=0"]
    plain += ["dataset.augment.flip.enabled=false"]
    return compose_config(["dataset=image_folder", f"dataset.root='{root}'", *plain, *overrides]).dataset


class TinyClassifier(nn.Module):
    """All that a network may do differently in training: batch norm and dropout, before one linear layer."""

    def __init__(self, *, in_channels: int, image_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.norm(images).flatten(1)))
        return logits


def fill(module: nn.Module) -> nn.Module:
    """Give every parameter the sine of a stretched arange: weights that no version of torch draws differently."""
    with torch.no_grad():
        for parameter in module.parameters():
            steps = torch.linspace(-7, 7, parameter.numel()).view(parameter.shape)
            parameter.copy_(torch.sin(steps) / max(parameter.shape[-1], 1) ** 0.5)
    return module


def numpy_log_softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Logarithms of the softened distribution of each row, in float64."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Array = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def numpy_cross_entropy(logits: Array, targets: NDArray[np.int64], label_smoothing: float = 0.0) -> float:
    """Cross-entropy with smoothed one-hot targets, written out as a sum over classes."""
    wanted = np.full(logits.shape, label_smoothing / logits.shape[1])
    wanted[np.arange(len(targets)), targets] += 1 - label_smoothing
    return float(-(wanted * numpy_log_softmax(logits)).sum(axis=1).mean())


def some_logits(seed: int, num: int, num_classes: int, scale: float = 3.0) -> Array:
    """Logits (num, num_classes) of a normal distribution."""
    return np.random.default_rng(seed).normal(scale=scale, size=(num, num_classes))


def some_split(num: int, num_classes: int, shape: tuple[int, int, int] = (1, 4, 4)) -> Split:
    """Images of pseudo-random pixels, whose targets go round the classes."""
    pixels = np.random.default_rng(num).integers(0, 256, size=(num, *shape), dtype=np.uint8)
    return Split(torch.from_numpy(pixels), torch.arange(num) % num_classes)


def steps(crop: int = 0, flip: bool = False, cutout: int = 0) -> dict[str, Augmentation]:
    """The packaged augmentations; without arguments they do nothing."""
    return {"crop": Crop(padding=crop), "flip": Flip(enabled=flip), "cutout": Cutout(size=cutout)}


def message_of(action: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """What the user is told when `action` refuses; fails where it does not."""
    try:
        action(*arguments, **named)
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def refusal(key: str, value: object, words: str) -> str:
    """What the user is told of a value that is not accepted."""
    return f"{key}={show(value)} is not accepted\n  write {words}"


VOID = {"meta", "img", "link", "br", "hr", "input"}  # elements without an end


class Page(HTMLParser):
    """An HTML page: its tags must be closed in order; its elements and its text are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
