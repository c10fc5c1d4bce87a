"""Labels that are texts: the classes that they make, and what to say where one is no class."""

import difflib
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

import numpy as np
import torch

from distill_run.data.listing import read_folder
from distill_run.data.photo_list import PhotoList, Reader
from distill_run.data.source import PhotoSource
from distill_run.errors import Mistake, UserError, refuse, user_error
from distill_run.units import printable

SPLITS = ("train", "val", "test")
MOST_SHOWN = 5  # names of classes
LONGEST_WHOLE = 18  # digits of a label that counts as a number


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

    Raises UserError for fewer than two classes, for names that are no text, and for labels that are no classes.
    """
    train = parts["train"].place
    if not parts["train"].labels:
        raise user_error(f"{train} has no image with a label", "give images of two classes at least")
    if len(classes) < 2:
        raise user_error(f"{train} has images of one class, {classes[0]}", "give images of two classes at least")
    mistakes = [
        Mistake(f"{train}: the label {printable(name)} is no text that can be printed", "write it in UTF-8")
        for name in classes
        if not _is_text(name)
    ]
    for part in parts.values():
        for label, num in Counter(part.labels).items():
            if label not in classes:
                what = f"{part.place}: {printable(label)}, the label of {num:,}, is no class"
                mistakes.append(Mistake(what, nearest(label, classes)))
    refuse(mistakes, "labels that are no classes", f"the classes are {some(classes)}")
    target_of = {name: target for target, name in enumerate(classes)}
    photos = {}
    for name, part in parts.items():
        targets = torch.tensor([target_of[label] for label in part.labels], dtype=torch.int64)
        photos[name] = PhotoList(part.reader, np.array(part.items, dtype=np.int64), targets, channels)
    return PhotoSource(photos["train"], photos.get("val"), photos.get("test"), classes, tuple(notes))


def class_folders(folder: Path) -> dict[str, Path]:
    """The subfolders by the names of the classes that they hold, in alphabetical order.

    Raises UserError for a name that no report could show, and for two folders of one name.
    """
    found: dict[str, Path] = {}
    for name in read_folder(folder).folders:
        if not _is_text(name):
            raise _unprintable(folder / name)
        label = as_label(name)
        if label in found:
            raise user_error(
                f"{folder} has two folders {label}, whose names differ in Unicode's forms of a letter alone",
                f"type mv -n {_typed(folder / name)}/* {_typed(found[label])} && rmdir {_typed(folder / name)}",
            )
        found[label] = folder / name
    return dict(sorted(found.items()))


def as_label(text: str) -> str:
    """A name in Unicode's composed form: macOS takes letters with accents apart, Linux and Windows do not."""
    return normalize("NFC", text)


def order_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in alphabetical order; in numerical order where all of them are whole numbers."""
    names = set(labels)
    if all(is_whole(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def is_whole(label: str) -> bool:
    """Whether a label is a whole number."""
    return len(label) <= LONGEST_WHOLE and label.removeprefix("-").isdecimal()


def nearest(name: str, classes: Sequence[str]) -> str:
    """The remedy for a label that is none of the classes of train."""
    near = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean {near[0]}?" if near else f"train has {some(classes)}"


def some(names: Sequence[str]) -> str:
    """Some names of classes, for messages."""
    return ", ".join(names[:MOST_SHOWN]) + (" ..." if len(names) > MOST_SHOWN else "")


def _is_text(name: str) -> bool:
    """Whether a name can be written into a report: no bytes outside UTF-8, no control characters."""
    return name.isprintable() or not any(category(char) in ("Cc", "Cs") for char in name)


def _unprintable(path: Path) -> UserError:
    """The error for a class folder whose name is no text; that of an old archive is in Latin-1, as a rule."""
    is_utf_8 = not any(category(char) == "Cs" for char in path.name)
    text = path.name if is_utf_8 else os.fsencode(path.name).decode("latin-1")
    meant = path.with_name("".join(char for char in text if category(char) != "Cc").strip() or "new_name")
    typed = shlex.quote(str(path.with_name("new_name") if meant.exists() else meant))
    return user_error(
        f"{printable(str(path))} is a class whose name is no text that can be printed",
        f"type mv {_typed(path)} {typed}",
    )


def _typed(path: Path) -> str:
    """A path as bash takes it, whatever bytes it has."""
    safe = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in os.fsencode(path))
    return f"$'{''.join(safe)}'"
