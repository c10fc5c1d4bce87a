"""The content-addressed store: what was computed once from the same inputs is not computed again.

An entry's name is the sha256 of everything that it depends on. It is written under a temporary name and renamed,
so that it is there whole or not at all.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FORMAT = 1  # raised when the content of an entry for the same inputs changes


def canonical(value: Any) -> Any:
    """A form that is equal for inputs that mean the same: keys sorted, whole floats as integers, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def fingerprint(inputs: dict[str, Any]) -> str:
    """The sha256, in hexadecimal, of inputs made of plain containers, numbers, texts and null."""
    text = json.dumps({"format": FORMAT, "inputs": canonical(inputs)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """Entries ROOT/<kind>/<fingerprint>, each a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, name: str) -> Path:
        """Where the entry of that kind and fingerprint lies, or would lie."""
        return self.root / kind / name

    def obtain(self, kind: str, name: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """The entry's directory, and whether it was there already; if not, `make` fills a new one.

        Where two processes make the same entry at once, the first to finish publishes it.
        """
        path = self.path(kind, name)
        if path.is_dir():
            return path, True
        absent = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f".{name[:12]}-", dir=path.parent))
        try:
            make(working)
            working.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp's is for its owner alone
            try:
                working.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            remove_empty(absent)
            raise
        shutil.rmtree(working, ignore_errors=True)  # where another process was first
        return path, False


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that were made in vain, innermost first, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain containers as JSON, whole or not at all; a number that is not finite is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
