"""Labels that are texts: the classes that they make, and what to say where one is no class."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from distill_run.data.photo_list import PhotoList, Reader
from distill_run.data.source import PhotoSource
from distill_run.errors import Mistake, refuse, user_error

SPLITS = ("train", "val", "test")
MOST_SHOWN = 5  # names of classes


class Labelled(NamedTuple):
    """The photographs of a split that have a label: their numbers `items` in the reader, the `labels`, and where."""

    reader: Reader
    items: Sequence[int]
    labels: Sequence[str]
    place: str


def label_source(
    parts: Mapping[str, Labelled], classes: tuple[str, ...], channels: int, notes: Iterable[str] = ()
) -> PhotoSource:
    """The source of the splits "train" and, where they are there, "val" and "test".

    Raises UserError for fewer than two classes, and for labels that are none of them.
    """
    train = parts["train"].place
    if not parts["train"].labels:
        raise user_error(f"{train} has no image with a label", "give images of two classes at least")
    if len(classes) < 2:
        raise user_error(f"{train} has images of one class, {classes[0]}", "give images of two classes at least")
    mistakes = []
    for part in parts.values():
        for label, num in Counter(part.labels).items():
            if label not in classes:
                mistakes.append(
                    Mistake(f"{part.place}: {label}, the label of {num:,}, is no class", nearest(label, classes))
                )
    refuse(mistakes, "labels that are no classes", f"the classes are {some(classes)}")
    target_of = {name: target for target, name in enumerate(classes)}
    photos = {}
    for name, part in parts.items():
        targets = torch.tensor([target_of[label] for label in part.labels], dtype=torch.int64)
        photos[name] = PhotoList(part.reader, np.array(part.items, dtype=np.int64), targets, channels)
    return PhotoSource(photos["train"], photos.get("val"), photos.get("test"), classes, tuple(notes))


def order_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in alphabetical order; in numerical order where all of them are whole numbers."""
    names = set(labels)
    if all(is_whole(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def is_whole(label: str) -> bool:
    """Whether a label is a whole number."""
    return label.removeprefix("-").isdecimal()


def nearest(name: str, classes: Sequence[str]) -> str:
    """The remedy for a label that is none of the classes of train."""
    near = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean {near[0]}?" if near else f"train has {some(classes)}"


def some(names: Sequence[str]) -> str:
    """Some names of classes, for messages."""
    return ", ".join(names[:MOST_SHOWN]) + (" ..." if len(names) > MOST_SHOWN else "")
