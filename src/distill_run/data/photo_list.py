"""Photographs that are not read yet: where they lie, what they are called, and the class of each."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill_run.errors import first_line
from distill_run.units import printable

MOST_BYTES = 2**30  # of an image file


class Reader(Protocol):
    """Gives the bytes of image files by number; worker processes use copies of it."""

    def read(self, item: int) -> bytes:
        """The bytes of a file; raises OSError where they cannot be read."""

    def name(self, item: int) -> str:
        """What people call the file."""

    def place(self, item: int) -> str:
        """Where the file lies, for messages."""

    def signature(self, item: int) -> tuple[object, ...]:
        """Plain values that change with the file: where it lies, and what `change_of` says of it."""


def change_of(path: str | Path) -> tuple[int, int, int]:
    """What differs once a file has changed: its size, and the times when its content and its record were changed.

    tar, rsync -t and cp -p set the first time as they like; the second is the system's own (ctime), which no program
    can set, and which network disks have, too. The inode says no more, and some network disks change it. A file that is
    not there has no time: reading it says what is wrong.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116  # as fast as it can be: there may be a million files
    except OSError:
        return 0, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def read_file(path: str) -> bytes:
    """The bytes of a file; raises OSError where it cannot be read, or is larger than any photograph."""
    with open(path, "rb") as file:  # noqa: PTH123  # a Path costs as much as the rest of this function
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise OSError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
        return file.read()


def reason_of(error: OSError | ValueError) -> str:
    """Why a file cannot be read, without its path."""
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


@final
class FileReader(Reader):
    """Reads files; `names` are their paths from a folder on, or absolute paths."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100  # a Path would resolve links
        self.names: NDArray[np.bytes_] = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def read(self, item: int) -> bytes:
        """See Reader."""
        return read_file(self._path(item))

    def name(self, item: int) -> str:
        """See Reader."""
        return printable(os.fsdecode(self.names[item]))

    def place(self, item: int) -> str:
        """See Reader."""
        return printable(self._path(item))

    def signature(self, item: int) -> tuple[object, ...]:
        """See Reader."""
        path = self._path(item)
        return path, *change_of(path)

    def _path(self, item: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.names[item]))  # noqa: PTH118


@dataclass(frozen=True)
class PhotoList:
    """Some of a reader's photographs: the numbers `items` (N,) in the reader, and their targets (N,).

    They are read as images with 1 (grey) or 3 (colour) `channels`.
    """

    reader: Reader
    items: NDArray[np.int64]
    targets: Tensor
    channels: int

    @classmethod
    def of_all(cls, reader: Reader, targets: Iterable[int], channels: int) -> "PhotoList":
        """All photographs of a reader."""
        classes = torch.tensor(list(targets), dtype=torch.int64)
        return cls(reader, np.arange(len(classes)), classes, channels)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """What people call a photograph: the path of its file."""
        return self.reader.name(int(self.items[index]))

    def place(self, index: int) -> str:
        """Where a photograph's file lies, for messages."""
        return self.reader.place(int(self.items[index]))

    def read(self, index: int) -> bytes:
        """The bytes of a photograph's file; raises OSError where they cannot be read."""
        return self.reader.read(int(self.items[index]))

    def select(self, indices: Tensor) -> "PhotoList":
        """The photographs at `indices` (M,), in their order."""
        return PhotoList(self.reader, self.items[indices.numpy()], self.targets[indices], self.channels)
