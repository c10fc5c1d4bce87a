"""Your own images with their labels in files: a line has the path and the label of an image and, perhaps, its split.

A file is text in UTF-8 with a header; its columns are separated by commas, semicolons or tabs.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from distill_run.data.labels import SPLITS, Labelled, as_label, label_source, nearest, order_classes
from distill_run.data.photo_list import FileReader
from distill_run.data.source import PhotoSource
from distill_run.errors import Mistake, gather, refuse, user_error
from distill_run.listener import Listener, working
from distill_run.rules import one_of

PATH, LABEL, SPLIT = "path", "label", "split"
COLUMNS = (
    f"name the columns in the first line: {PATH},{LABEL}; or {PATH},{LABEL},{SPLIT} to list all splits in one file"
)
SEPARATORS = (",", ";", "\t")


class Row(NamedTuple):
    """What a file says about an image; `place` is the name of the file and the number of the line, for messages.

    `is_there` says whether the image's file has been found.
    """

    place: str
    path: str
    label: str
    split: str
    is_there: bool = False


def load(
    *, root: str | None, train: str | None, val: str | None, test: str | None, channels: int, listener: Listener
) -> PhotoSource:
    """The photographs that files list, in 1 (grey) or 3 (colour) channels; they are not read yet.

    Paths begin at the folder `root`, or are absolute. The classes are the labels of train. Raises UserError with the
    first mistakes in the files.
    """
    one_of(1, 3).check("channels", channels)
    if root is None or train is None:
        raise user_error(
            f"dataset.{'root' if root is None else 'train'} is not set",
            "write dataset.root=DIR dataset.train=FILE, where FILE has path and label of each image in DIR",
        )
    if not Path(root).is_dir():
        raise user_error(f"dataset.root={root} is not a folder", "give the folder that the paths in the files begin at")
    files = {name: file for name, file in zip(SPLITS, (train, val, test), strict=True) if file is not None}
    tables = gather(partial(_read, name, file, root, is_only=len(files) == 1) for name, file in files.items())
    rows = _located([row for table in tables for row in table], root, listener)
    if not (labels := {row.label for row in rows if row.split == "train" and row.label}):
        raise user_error(f"{train} lists no image of train", f"write train into the column {SPLIT}")
    classes = order_classes(labels)
    refuse(list(_mistakes(rows, classes, root)), "mistakes in the files", "mend the lines, or remove them")
    parts = {name: _part([row for row in rows if row.split == name], files.get(name, train), root) for name in SPLITS}
    return label_source({name: part for name, part in parts.items() if part.items}, classes, channels)


def _part(rows: Sequence[Row], file: str, root: str) -> Labelled:
    reader = FileReader(Path(root), (row.path for row in rows))
    return Labelled(reader, range(len(rows)), [row.label for row in rows], file)


def _read(name: str, file: str, root: str, *, is_only: bool) -> list[Row]:
    """The rows of a file, which is looked for in the working folder and then in `root`."""
    path = next((path for path in (Path(file), Path(root, file)) if path.is_file()), None)
    if path is None:
        raise user_error(
            f"dataset.{name}={file}: there is no such file, neither here nor in {root}", "correct its name"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = list(_parse(name, file, text, is_only=is_only))
    except (UnicodeDecodeError, csv.Error) as error:
        raise user_error(f"{file} cannot be read: {error}", "save it as text in UTF-8") from error
    except OSError as error:
        raise user_error(f"{file} cannot be read: {error.strerror}", f"make {path} readable") from error
    if not rows:
        raise user_error(f"{file} lists no image", f"add a line for each image, or leave dataset.{name} out")
    return rows


def _parse(name: str, file: str, text: Iterator[str], *, is_only: bool) -> Iterator[Row]:
    """The rows of a file; where it does not name the splits, they are all of the split `name`."""
    header = next(text, "")
    separator = max(SEPARATORS, key=header.count)
    columns = [
        column.strip().lower() for column in next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
    ]
    if absent := [column for column in (PATH, LABEL) if column not in columns]:
        has = ", ".join(filter(None, columns)) or "none"
        raise user_error(f"{file} has no column {' and no column '.join(absent)}, it has {has}", COLUMNS)
    if SPLIT in columns and not is_only:
        raise user_error(
            f"{file} has a column {SPLIT}, but there is more than one file",
            f"give one file for all splits, as dataset.train={file}; or remove that column",
        )
    lines = csv.reader(text, delimiter=separator, skipinitialspace=True)
    for cells in lines:
        if any(cells):
            found = dict(zip(columns, map(str.strip, cells), strict=False))
            split = found.get(SPLIT, "") if SPLIT in columns else name
            label = as_label(found.get(LABEL, ""))
            yield Row(f"{file}, line {lines.line_num + 1}", found.get(PATH, ""), label, split)


def _located(rows: Sequence[Row], root: str, listener: Listener) -> list[Row]:
    """The same rows, with the paths under which the images are found."""
    located = []
    with working(listener, f"looking for {len(rows):,} images", len(rows)) as advance:
        for number, row in enumerate(rows, 1):
            path = next((path for path in _spellings(row.path) if _is_file(root, path)), None)
            located.append(row if path is None else row._replace(path=path, is_there=True))
            advance(number)
    return located


def _spellings(path: str) -> Iterator[str]:
    """A path as it stands, then as other systems write it: backslashes, file://, ~, letters with accents apart."""
    yield path
    plain = unquote(path.removeprefix("file://")) if path.startswith("file://") else os.path.expanduser(path)  # noqa: PTH111
    for text in (plain, plain.replace("\\", "/")):
        yield from (normalize("NFC", text), normalize("NFD", text))


def _is_file(root: str, path: str) -> bool:
    return os.path.isfile(os.path.join(root, path))  # noqa: PTH113, PTH118  # faster than a Path


def _mistakes(rows: Sequence[Row], classes: Iterable[str], root: str) -> Iterator[Mistake]:
    """What is wrong with the rows, in their order; of each row, the first mistake."""
    first: dict[str, Row] = {}  # that has a path
    known = dict.fromkeys(classes)
    for row in rows:
        before = first.setdefault(os.path.normpath(row.path), row)
        if mistake := _mistake(row, before, known, root):
            yield Mistake(f"{row.place}: {mistake.what}", mistake.remedy)


def _mistake(row: Row, before: Row, classes: dict[str, None], root: str) -> Mistake | None:
    """What is wrong with a row, where `before` is the first row with its path."""
    for column, value in ((PATH, row.path), (LABEL, row.label)):
        if not value:
            return Mistake(f"the {column} is empty", "add it, or remove the line")
    if row.split not in SPLITS:
        return Mistake(f"the {SPLIT} is {row.split or 'empty'}", f"write one of {', '.join(SPLITS)}")
    if row.label not in classes:
        return Mistake(f"{row.label} is a label that train does not have", nearest(row.label, list(classes)))
    if row.label != before.label and before.label:
        return Mistake(
            f"{row.path} has the label {row.label}, but in {before.place} {before.label}", "keep one of them"
        )
    if not row.is_there:
        return Mistake(f"there is no file {Path(root, row.path)}", "correct the path, or remove the line")
    return None
