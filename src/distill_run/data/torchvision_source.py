"""The small benchmarks that torchvision downloads: CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST, SVHN."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_run.data.source import Source, Split
from distill_run.errors import first_line, user_error
from distill_run.rules import one_of

# Where torchvision has the files of each dataset, below its root.
PLACES = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
    "SVHN": "{split}_32x32.mat",
}


def load(*, dataset: str, root: str, download: bool) -> Source:
    """One of torchvision's datasets under `root`; it is downloaded first if it is missing and `download` is true.

    Raises UserError if it is missing and cannot be downloaded, and if its files are damaged.
    """
    one_of(*PLACES).check("dataset", dataset)
    (train, names), (test, _) = (_open(dataset, root, download, split) for split in ("train", "test"))
    return Source(train, None, test, names)


def _open(name: str, root: str, download: bool, split: str) -> tuple[Split, tuple[str, ...]]:
    """The images of a split, and the names of the classes."""
    from torchvision import datasets  # takes 1.4 s, which other datasets need not pay for

    which = {"split": split} if name == "SVHN" else {"train": split == "train"}
    try:
        dataset = getattr(datasets, name)(root, download=download, **which)
        classes = tuple(getattr(dataset, "classes", map(str, range(10))))
        return _split(dataset, len(classes)), classes
    except Exception as error:  # of damaged files torchvision raises anything, AssertionError among it
        place = Path(root, PLACES[name].format(split=split))
        if place.exists():
            raise user_error(
                f"{name} in {place} is damaged, or not whole: {first_line(error)}",
                f"remove {place}, and let it be fetched again; or copy torchvision's files there again",
            ) from error
        raise user_error(
            f"{name} is not in dataset.root={root} and could not be fetched: {first_line(error)}",
            f"connect once, or copy torchvision's files of {name} into {Path(root).resolve()}",
        ) from error


def _split(dataset: Any, num_classes: int) -> Split:
    """The images and the targets; raises ValueError where they do not belong together."""
    images = torch.as_tensor(np.asarray(dataset.data))
    if images.ndim == 3:  # MNIST: (N, H, W)
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR: (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    targets = dataset.targets if hasattr(dataset, "targets") else dataset.labels  # SVHN has labels
    targets = torch.as_tensor(np.asarray(targets)).long()
    if len(images) != len(targets):
        raise ValueError(f"{len(images):,} images, but {len(targets):,} labels")
    if not ((targets >= 0) & (targets < num_classes)).all():
        raise ValueError(f"labels that are not in 0..{num_classes - 1}")
    return Split(images.contiguous(), targets)
