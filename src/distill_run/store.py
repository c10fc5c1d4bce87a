"""The content-addressed store: what was computed once from the same inputs is not computed again.

An entry's name is the sha256 of everything that it depends on. It is made by one process, under a lock, in a
temporary folder, and renamed, so that it is there whole or not at all. The lock is the operating system's: it is free
again the moment its owner dies, and the next process takes over.

    ROOT/<kind>/<fingerprint>/   its files, and meta.json: facts about it and the sha256 of each file
    ROOT/.locks/                 an empty file for each entry that was ever made
    ROOT/.runs/                  a file for each run: the entries that it uses
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distill_run.files import atomic_path, told_of_no_room, write_json

FORMAT = 3  # raised when the content of an entry for the same inputs changes
META = "meta.json"
LOCKS, RUNS = ".locks", ".runs"
SHOWN_NAME = 12


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
    """Entries ROOT/<kind>/<fingerprint>, each a directory; see the module.

    `tell` is given a sentence when the user would wonder: another process is waited for, an entry was damaged.
    """

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self.root = root
        self.tell = tell

    def path(self, kind: str, name: str) -> Path:
        """Where the entry of that kind and fingerprint lies, or would lie."""
        return self.root / kind / name

    def obtain(self, kind: str, name: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, bool]:
        """The entry's directory, and whether it was there already; if not, `make` fills a new one.

        `make` returns facts for meta.json. However many processes ask at once, one makes the entry and the others
        wait. An entry whose bytes have changed is made again. Raises UserError where the disk has no room.
        """
        path = self.path(kind, name)
        if path.is_dir() and not damage(path):
            return path, True
        with self._leaving_nothing_on_failure(path.parent), self.locked(kind, name):
            if path.is_dir():
                if not (found := damage(path)):
                    return path, True
                self.tell(f"{kind} {name[:SHOWN_NAME]} in the store is damaged ({found}): it is made again")
                shutil.rmtree(path)
            with self._working_folder(path) as working:
                facts = make(working)
                _write_meta(working, facts, {file.name: file_hash(file) for file in sorted(working.iterdir())})
                working.rename(path)
        return path, False

    def obtain_part(self, kind: str, name: str, file_name: str, make: Callable[[Path], None]) -> Path:
        """A file of an entry that grows; `make` writes it on first use, under the entry's lock."""
        path = self.path(kind, name) / file_name
        if _is_sound_part(path):
            return path
        with self.locked(kind, name):
            if _is_sound_part(path):
                return path
            if path.exists():
                self.tell(f"{kind} {name[:SHOWN_NAME]} in the store is damaged ({file_name}): it is made again")
            with self._told_of_no_room(), atomic_path(path) as temporary:
                make(temporary)
                digest = file_hash(temporary)
            meta = read_meta(path.parent)
            write_json(path.parent / META, {**meta, "parts": {**meta["parts"], file_name: digest}})
        return path

    def record_use(self, run_dir: Path, kind: str, name: str) -> None:
        """Note that a run refers to an entry: `distill-store gc` leaves it alone while the run's folder is there."""
        place = os.path.relpath(run_dir.resolve(), self.root.resolve())  # right also where both are moved together
        path = self.root / RUNS / f"{fingerprint({'run': place})}.json"
        entries = set(json.loads(path.read_text(encoding="utf-8"))["entries"]) if path.is_file() else set()
        if f"{kind}/{name}" not in entries:
            with self._told_of_no_room():
                write_json(path, {"run": place, "entries": sorted({*entries, f"{kind}/{name}"})})

    @contextmanager
    def locked(self, kind: str, name: str) -> Iterator[None]:
        """Hold the entry's lock, which one process at a time can."""
        with self._told_of_no_room():
            path = self.root / LOCKS / f"{kind}-{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.tell(f"{kind} {name[:SHOWN_NAME]}: another process is making it; waiting for that")
                lock.acquire()
        try:
            yield
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            lock.release()

    @contextmanager
    def _leaving_nothing_on_failure(self, folder: Path) -> Iterator[None]:
        """Remove again what was made in vain: `folder`, the store itself and its parents, where they are empty."""
        folders = (folder, self.root / LOCKS, self.root, *self.root.parents)
        absent = [folder for folder in folders if not folder.exists()]
        try:
            yield
        except BaseException:
            with suppress(OSError):
                for folder in absent:
                    folder.rmdir()
            raise

    @contextmanager
    def _working_folder(self, path: Path) -> Iterator[Path]:
        """A folder to fill, which is gone after the block unless it was renamed; needs the entry's lock."""
        prefix = f".{path.name}-"
        with self._told_of_no_room():
            path.parent.mkdir(parents=True, exist_ok=True)
            for orphan in path.parent.glob(f"{prefix}*"):  # of a process that was killed: the lock was free
                shutil.rmtree(orphan)
            working = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
            try:
                working.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp's is for its owner alone
                yield working
            finally:
                shutil.rmtree(working, ignore_errors=True)

    def _told_of_no_room(self) -> AbstractContextManager[None]:
        return told_of_no_room("store_dir", self.root)


def read_meta(directory: Path) -> dict[str, Any]:
    """The content of an entry's meta.json."""
    meta: dict[str, Any] = json.loads((directory / META).read_text(encoding="utf-8"))
    return meta


def damage(directory: Path) -> str | None:
    """Which file of an entry is not what was written, or None; the parts of an entry that grows are left out."""
    try:
        files = read_meta(directory)["files"]
        return next((name for name, digest in files.items() if file_hash(directory / name) != digest), None)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Path(error.filename).name if isinstance(error, OSError) and error.filename else META


def damaged_parts(directory: Path) -> list[str]:
    """Which files of an entry that grows are not what was written."""
    return [name for name in read_meta(directory)["parts"] if not _is_sound_part(directory / name)]


def _is_sound_part(path: Path) -> bool:
    return path.is_file() and read_meta(path.parent)["parts"].get(path.name) == file_hash(path)


def _write_meta(directory: Path, facts: dict[str, Any], files: dict[str, str]) -> None:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(directory / META, {**facts, "created": created, "files": files, "parts": {}})
