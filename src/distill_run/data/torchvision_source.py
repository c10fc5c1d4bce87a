"""The small benchmarks that torchvision downloads: CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST, SVHN."""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_run.data.source import Source, Split
from distill_run.errors import first_line, user_error
from distill_run.rules import one_of

# URLError is an OSError; a RuntimeError tells of files that are missing or whose hash is wrong.
FAILURES = (OSError, HTTPException, RuntimeError)
DATASETS = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "SVHN")


def load(*, dataset: str, root: str, download: bool) -> Source:
    """One of torchvision's datasets under `root`; it is downloaded first if it is missing and `download` is true.

    Raises UserError if it is missing and cannot be downloaded.
    """
    one_of(*DATASETS).check("dataset", dataset)
    train, test = (_open(dataset, root, download, split) for split in ("train", "test"))
    names = getattr(train, "classes", [str(digit) for digit in range(10)])
    return Source(_split(train), None, _split(test), tuple(names))


def _open(name: str, root: str, download: bool, split: str) -> Any:
    from torchvision import datasets  # takes 1.4 s, which other datasets need not pay for

    which = {"split": split} if name == "SVHN" else {"train": split == "train"}
    try:
        return getattr(datasets, name)(root, download=download, **which)
    except FAILURES as error:
        raise user_error(
            f"{name} is not in dataset.root={root} and could not be fetched: {first_line(error)}",
            f"connect once, or copy torchvision's files of {name} into {Path(root).resolve()}",
        ) from error


def _split(dataset: Any) -> Split:
    images = torch.as_tensor(np.asarray(dataset.data))
    if images.ndim == 3:  # MNIST: (N, H, W)
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR: (N, H, W, C)
        images = images.permute(0, 3, 1, 2)
    targets = dataset.targets if hasattr(dataset, "targets") else dataset.labels  # SVHN has labels
    return Split(images.contiguous(), torch.as_tensor(np.asarray(targets)).long())
