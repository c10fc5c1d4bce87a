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


class Reader(Protocol):
    """Gives the bytes of image files by number; worker processes use copies of it."""

    def read(self, item: int) -> bytes:
        """The bytes of a file; raises OSError where they cannot be read."""

    def name(self, item: int) -> str:
        """What people call the file."""

    def place(self, item: int) -> str:
        """Where the file lies, for messages."""

    def signature(self, item: int) -> tuple[str, int, int]:
        """Changes with the file: its place, its size in bytes, and when it was changed, in nanoseconds."""


@final
class FileReader(Reader):
    """Reads files; `names` are their paths from a folder on, or absolute paths."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100  # a Path would resolve links
        self.names: NDArray[np.bytes_] = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def read(self, item: int) -> bytes:
        """See Reader."""
        with open(self.place(item), "rb") as file:  # noqa: PTH123  # a Path costs as much as the rest of this method
            return file.read()

    def name(self, item: int) -> str:
        """See Reader."""
        return os.fsdecode(self.names[item])

    def place(self, item: int) -> str:
        """See Reader."""
        return os.path.join(self.folder, self.name(item))  # noqa: PTH118

    def signature(self, item: int) -> tuple[str, int, int]:
        """See Reader."""
        path = self.place(item)
        stat = os.stat(path)  # noqa: PTH116
        return path, stat.st_size, stat.st_mtime_ns


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
