"""What lies in a store: its entries, what is left half made, and which runs use what.

Only what bears the name of an entry counts, so that other files are safe in a store, and in a folder that somebody
takes for a store.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill_run.errors import user_error
from distill_run.store import RUNS, SHOWN_NAME
from distill_run.store_records import META, NOT_A_RECORD, read_meta, read_uses
from distill_run.units import quantity

NAME = re.compile(r"[0-9a-f]{64}")
WORKING = re.compile(rf"\.({NAME.pattern})-\w+")  # a folder in which an entry is made
CLOCK_STEP = 2 * 10**9  # nanoseconds; no file system has a coarser clock


@dataclass(frozen=True)
class Entry:
    """An entry of the store, or what is left of one; `runs` are the runs that use it."""

    path: Path
    kind: str
    name: str
    num_bytes: int
    created: datetime
    about: str
    runs: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """Its kind and the beginning of its name."""
        return f"{self.kind:<9} {self.name[:SHOWN_NAME]}"


def counted(entries: Sequence[Entry]) -> str:
    """The number of entries and their size on disk, in words."""
    total = quantity(sum(entry.num_bytes for entry in entries))
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}, {total}B"


def list_entries(root: Path) -> list[Entry]:
    """All entries; of each kind the oldest first."""
    users = Users(root)
    entries = []
    for path in _in_kinds(root):
        if NAME.fullmatch(path.name) and path.is_dir():
            with suppress(FileNotFoundError):  # another process has just removed it
                entries.append(_read_entry(path, users))
    return sorted(entries, key=lambda entry: (entry.kind, entry.created, entry.name))


def list_leftovers(root: Path) -> list[Entry]:
    """What is half made: by a process at work, which holds the lock of the entry, or by one that was killed."""
    found = []
    for path in _in_kinds(root):
        if (match := WORKING.fullmatch(path.name)) and path.is_dir():
            found.append((path, path.parent.name, match[1]))
        elif NAME.fullmatch(path.name):
            halves = [file for file in children(path) if file.name.startswith(".") and file.suffix == ".tmp"]
            found += [(half, path.parent.name, path.name) for half in halves]
    entries = []
    for path, kind, name in found:
        with suppress(FileNotFoundError):  # it has just been finished
            entries.append(Entry(path, kind, name, _num_bytes(path), _changed(path), "left half made"))
    return entries


def _in_kinds(root: Path) -> Iterator[Path]:
    """What lies in the folders of the kinds."""
    for kind in children(root):
        if not kind.name.startswith("."):
            yield from children(kind)


def children(folder: Path) -> list[Path]:
    """What a folder holds; nothing where it is not a folder, or no longer there."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_entry(path: Path, users: "Users") -> Entry:
    kind, name = path.parent.name, path.name
    try:
        meta: dict[str, Any] = read_meta(path)
        created, about = datetime.fromisoformat(meta["created"]).astimezone(UTC), str(meta["about"])
    except (OSError, *NOT_A_RECORD):
        created, about = _changed(path), f"its {META} cannot be read"
    return Entry(path, kind, name, _num_bytes(path), created, about, tuple(users.of(path)))


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _num_bytes(path: Path) -> int:
    total = 0
    for file in (path, *(Path(folder, name) for folder, _, names in os.walk(path) for name in names)):
        with suppress(FileNotFoundError):  # a temporary file, while the entry grows
            total += file.stat().st_size if file.is_file() else 0
    return total


class Users:
    """Who uses an entry of the store in `root`. All records are read again when one has been written since."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._written: int | None = None
        self._runs: dict[str, list[Path]] = {}

    def of(self, path: Path) -> list[Path]:
        """The runs that use the entry in a folder; only runs whose own folders are still there."""
        if (written := _last_written(self.root / RUNS)) is None or written != self._written:
            self._runs = defaultdict(list)
            for run_dir, names in records(self.root).values():
                for name in names:
                    self._runs[name].append(run_dir)
            self._written = written
        return [run_dir for run_dir in self._runs.get(f"{path.parent.name}/{path.name}", ()) if run_dir.is_dir()]


def _last_written(folder: Path) -> int | None:
    """When a file was last put into a folder; None where this was just now: the next may bear the same time."""
    try:
        written = folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
    return written if time.time_ns() - written > CLOCK_STEP else None


def records(root: Path) -> dict[Path, tuple[Path, list[str]]]:
    """The record of each run, by its path: the run's folder, and the entries that the run uses."""
    found = {}
    for path in children(root / RUNS):
        if path.name.startswith(".") or path.suffix != ".json":
            continue
        try:
            content = read_uses(path)
            found[path] = ((root / content["run"]).resolve(), list(content["entries"]))
        except FileNotFoundError:  # another process has just removed it
            continue
        except (OSError, *NOT_A_RECORD) as error:
            remedy = "remove it; entries that only its run uses will then count as unused"
            raise user_error(f"{path} cannot be read", remedy) from error
    return found
