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

from distill_run.data.labels import SPLITS, Labelled, label_source, order_classes
from distill_run.data.listing import EXTENSIONS, given_folder, skipped_notes
from distill_run.data.photo_list import Reader
from distill_run.data.source import PhotoSource
from distill_run.errors import first_line, user_error
from distill_run.listener import Listener, working
from distill_run.rules import one_of

CLASSES = "classes.txt"
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
    skipped: Counter[str]


@final
class ShardReader(Reader):
    """Reads images from the middle of tar files; `samples` are those of each of the `shards`.

    A file is opened for each image, which takes a hundredth of its decoding: threads and processes share nothing.
    """

    def __init__(self, shards: Sequence[Path], samples: Sequence[Sequence[Sample]]) -> None:
        self.shards = [str(shard) for shard in shards]
        self.times = [shard.stat().st_mtime_ns for shard in shards]
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
        return os.fsdecode(self.names[item])

    def place(self, item: int) -> str:
        """See Reader."""
        return f"{self.shards[self.shard_of[item]]}: {self.name(item)}"

    def signature(self, item: int) -> tuple[str, int, int]:
        """See Reader; the time is that of the tar file."""
        return self.place(item), int(self.sizes[item]), self.times[self.shard_of[item]]


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
            notes += skipped_notes(split, sum((index.skipped for index in indexes), Counter[str]()))
    return label_source(parts, names or order_classes(parts["train"].labels), channels, notes)


def _shards(root: str | None) -> dict[str, list[Path]]:
    """The tar files of each split that there is; those of ROOT are of train, unless it has a folder of its own."""
    holds = "holds tar files, or train/ and, if they are there, val/ and test/ with tar files"
    top = given_folder(root, holds)
    folders = {"train": top} | {name: top / name for name in SPLITS if (top / name).is_dir()}
    shards = {name: sorted(folder.glob("*.tar")) for name, folder in folders.items()}
    for name, folder in folders.items():
        for path in sorted(folder.iterdir()):
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
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({line})" for line, name in enumerate(names))


def _class_of(label: str, names: Sequence[str]) -> str:
    """The name of the class; a label that is none is left as it is."""
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


def _index(shard: Path) -> Index:
    """What is in a tar file; raises UserError where it cannot be read."""
    images: list[tuple[str, Sample]] = []
    labels: dict[str, str | None] = {}
    skipped = Counter[str]()
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                name, _, extension = member.name.rpartition("/")[2].partition(".")
                key = member.name.removesuffix(f".{extension}")
                if not name:
                    skipped["hidden"] += 1
                elif f".{extension.lower()}" in EXTENSIONS:
                    images.append((key, Sample(member.name, member.offset_data, member.size)))
                elif extension in LABEL_OF:
                    file.seek(member.offset_data)
                    labels[key] = labels.get(key) or LABEL_OF[extension](file.read(member.size))
                else:
                    skipped[f".{extension} is no image"] += 1
    except (tarfile.TarError, OSError) as error:
        raise user_error(f"{shard} cannot be read: {first_line(error)}", "write the tar file again") from error
    found = [(sample, label) for key, sample in images if (label := labels.get(key))]
    skipped["without a label"] += len(images) - len(found)
    skipped["a label without an image"] += len(labels.keys() - {key for key, _ in images})
    return Index([sample for sample, _ in found], [label for _, label in found], skipped)


def _text_label(data: bytes) -> str | None:
    return data.decode(errors="replace").strip() or None


def _json_label(data: bytes) -> str | None:
    """What stands under "label", where that is a whole number or a text."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    label = content.get("label") if isinstance(content, dict) else None
    return str(label) if isinstance(label, int | str) and label != "" else None


LABEL_OF = {"cls": _text_label, "json": _json_label}
