"""Names of splits and of classes: the order of classes, and what to say about an unknown one."""

import difflib
from collections.abc import Iterable, Sequence

SPLITS = ("train", "val", "test")
MOST_SHOWN = 5  # names of classes


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
    """The remedy for a class that train does not have."""
    near = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean {near[0]}?" if near else f"train has {some(classes)}"


def some(names: Sequence[str]) -> str:
    """Some names of classes, for messages."""
    return ", ".join(names[:MOST_SHOWN]) + (" ..." if len(names) > MOST_SHOWN else "")
