"""Images in tar files, as WebDataset lays them out: NAME.jpg beside NAME.cls, or beside NAME.json with a "label".

The files are indexed once; images are then read from the middle of them, so any order costs the same.
"""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from distill_run.data.labels import SPLITS, Labelled, as_label, is_whole, label_source, order_classes
from distill_run.data.listing import Left, given_folder, read_folder, skipped_notes, why_not_read
from distill_run.data.photo_list import Reader, change_of
from distill_run.data.source import PhotoSource
from distill_run.errors import first_line, user_error
from distill_run.listener import Listener, working
from distill_run.rules import one_of
from distill_run.units import printable

CLASSES = "classes.txt"
MOST_LABEL_BYTES = 2**24
UNPACK = {".gz": "gunzip", ".tgz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "zstd -d --rm"}


class Sample(NamedTuple):
    """An image in a tar file: `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


class Index(NamedTuple):
    """The images of a tar file that have a label, their labels, and how many other files there are, by reason."""

    samples: list[Sample]
    labels: list[str]
    skipped: Counter[Left]


@final
class ShardReader(Reader):
    """Reads images from the middle of tar files; `samples` are those of each of the `shards`.

    A file is opened for each image, which takes a hundredth of its decoding: threads and processes share nothing.
    """

    def __init__(self, shards: Sequence[Path], samples: Sequence[Sequence[Sample]]) -> None:
        self.shards = [str(shard) for shard in shards]
        self.changes = [change_of(shard) for shard in shards]
        self.shard_of = np.repeat(np.arange(len(shards)), [len(own) for own in samples])
        everything = [sample for own in samples for sample in own]
        self.names = np.array([os.fsencode(sample.name) for sample in everything], dtype=np.bytes_)
        self.offsets = np.array([sample.offset for sample in everything], dtype=np.int64)
        self.sizes = np.array([sample.size for sample in everything], dtype=np.int64)

    def read(self, item: int) -> bytes:
        """See Reader."""
        with open(self.shards[self.shard_of[item]], "rb") as file:  # noqa: PTH123  # faster than a Path
            file.seek(int(self.offsets[item]))
            return file.read(int(self.sizes[item]))

    def name(self, item: int) -> str:
        """See Reader."""
        return printable(os.fsdecode(self.names[item]))

    def place(self, item: int) -> str:
        """See Reader."""
        return f"{self.shards[self.shard_of[item]]}: {self.name(item)}"

    def signature(self, item: int) -> tuple[object, ...]:
        """See Reader; size and times are those of the tar file."""
        return self.place(item), int(self.offsets[item]), *self.changes[self.shard_of[item]]


def load(*, root: str | None, channels: int, listener: Listener) -> PhotoSource:
    """The photographs in the tar files under `root`, in 1 (grey) or 3 (colour) channels; they are not read yet.

    The classes are the lines of ROOT/classes.txt, which a whole number counts from 0 on; without it, the labels of
    train. Images without a label are counted in the notes. Raises UserError for tar files that cannot be read.
    """
    one_of(1, 3).check("channels", channels)
    shards = _shards(root)
    names = _class_names(Path(root or "", CLASSES))
    parts, notes = {}, []
    with working(listener, f"indexing the tar files of {root}", sum(map(len, shards.values()))) as advance:
        done = count(1)
        for split, own in shards.items():
            indexes = []
            for shard in own:
                indexes.append(_index(shard))
                advance(next(done))
            labels = [_class_of(label, names) for index in indexes for label in index.labels]
            reader = ShardReader(own, [index.samples for index in indexes])
            parts[split] = Labelled(reader, range(len(labels)), labels, str(own[0].parent))
            notes += skipped_notes(split, sum((index.skipped for index in indexes), Counter[Left]()))
    return label_source(parts, names or order_classes(parts["train"].labels), channels, notes)


def _shards(root: str | None) -> dict[str, list[Path]]:
    """The tar files of each split that there is; those of ROOT are of train, unless it has a folder of its own."""
    holds = "holds tar files, or train/ and, if they are there, val/ and test/ with tar files"
    top = given_folder(root, holds)
    folders = {"train": top} | {name: top / name for name in SPLITS if (top / name).is_dir()}
    shards = {name: sorted(folder.glob("*.tar")) for name, folder in folders.items()}
    for name, folder in folders.items():
        for path in (folder / file for file in read_folder(folder).files):
            if path.suffix in UNPACK and (path.suffix == ".tgz" or Path(path.stem).suffix == ".tar"):
                raise user_error(
                    f"{path} is compressed: its images cannot be read one by one", f"type {UNPACK[path.suffix]} {path}"
                )
        if not shards[name]:
            raise user_error(f"{folder} holds no tar file", f"give the folder that {holds}")
    return shards


def _class_names(path: Path) -> tuple[str, ...]:
    """The names that a file has, one a line; none where there is no such file.

    Names that stand there twice, as two kinds of crane do in ImageNet, get the number of their line, from 0 on.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise user_error(f"{path} cannot be read: {error}", "save it as text in UTF-8") from error
    names = [as_label(line.strip()) for line in lines if line.strip()]
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({line})" for line, name in enumerate(names))


def _class_of(label: str, names: Sequence[str]) -> str:
    """The name of the class; a label that is none is left as it is."""
    return names[int(label)] if is_whole(label) and 0 <= int(label) < len(names) else label


def _index(shard: Path) -> Index:
    """What is in a tar file, which is never unpacked; raises UserError where it cannot be read."""
    images: list[tuple[str, Sample]] = []
    labels: dict[str, str | None] = {}
    skipped = Counter[Left]()
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in (each for each in tar if not each.isdir()):
                key, extension = _key_and_extension(member.name)
                if left := _why_skipped(member, key, extension):
                    skipped[left] += 1
                elif extension in LABEL_OF:
                    file.seek(member.offset_data)
                    labels[key] = labels.get(key) or LABEL_OF[extension](file.read(member.size))
                else:
                    images.append((key, Sample(member.name, member.offset_data, member.size)))
    except Exception as error:  # a damaged file makes tarfile raise anything, ValueError and OverflowError among it
        raise user_error(f"{shard} cannot be read: {first_line(error)}", "write the tar file again") from error
    found = [(sample, label) for key, sample in images if (label := labels.get(key))]
    skipped[Left("file", "without a label")] += len(images) - len(found)
    skipped[Left("file", "a label without an image")] += len(labels.keys() - {key for key, _ in images})
    return Index([sample for sample, _ in found], [label for _, label in found], skipped)


def _key_and_extension(name: str) -> tuple[str, str]:
    """What an image and its label have in common, and the rest, which begins at the first point of the file's name."""
    extension = name.rpartition("/")[2].partition(".")[2]
    return name.removesuffix(f".{extension}"), extension


def _why_skipped(member: tarfile.TarInfo, key: str, extension: str) -> Left | None:
    """Why a member is not read; None for an image and for a label."""
    if not member.isfile() or member.issparse():  # the bytes of these stand elsewhere, or with gaps
        return Left("link" if member.islnk() or member.issym() else "device", "in a tar file")
    if not key.rpartition("/")[2]:
        return Left("file", "hidden")
    if extension in LABEL_OF:
        return Left("file", "too large for a label") if member.size > MOST_LABEL_BYTES else None
    return why_not_read(f".{extension}" if extension else "")


def _text_label(data: bytes) -> str | None:
    return as_label(data.decode().strip()) or None


def _json_label(data: bytes) -> str | None:
    """What stands under "label", where that is a whole number or a text."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    label = content.get("label") if isinstance(content, dict) else None
    return as_label(str(label)) if isinstance(label, int | str) and label != "" else None


LABEL_OF = {"cls": _text_label, "json": _json_label}
