"""The directory of a sweep or a search: a new one, or that of the same request, which was cut short.

It holds sweep_command.json, which says what was asked for and how many runs that makes, and a lock while a process
works in it. The same command, typed again after the first process was killed, finds the directory and runs what is
left.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distill_run.build import folder_hash
from distill_run.config.schema import Settings
from distill_run.errors import user_error
from distill_run.files import write_json
from distill_run.fingerprints import fingerprint_of
from distill_run.sweeps.places import recorded_places
from distill_run.typed_json import read_object

RECORD = "sweep_command.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Request:
    """What was asked for: the command, and the fingerprint of all that it means (settings, own code, spaces).

    `num_points` is the number of runs that it asks for; None where only a sweeper of the user's knows it.
    """

    command: str
    fingerprint: str
    num_points: int | None

    @classmethod
    def of(
        cls,
        command: str,
        num_points: int | None,
        settings: Sequence[Settings],
        extra_dir: Path | None,
        spaces: dict[str, Any] | None = None,
    ) -> "Request":
        """The request of a command whose swept values have these settings; `spaces` are those of a search."""
        code = folder_hash(extra_dir) if extra_dir else None
        inputs = {"settings": [dataclasses.asdict(each) for each in settings], "code": code, "spaces": spaces}
        return cls(command, fingerprint_of(inputs), num_points)


@contextmanager
def named_directory(folder: Path, request: Request) -> Iterator[Path]:
    """The directory that the user names, locked for the time of the block.

    Raises UserError where something else lies in it, or where another process works in it.
    """
    _check_own(folder, request)
    with _locked(folder) as is_free:
        if not is_free:
            raise user_error(f"another process is at work in {folder}", "wait for it, or stop it")
        yield folder


@contextmanager
def dated_directory(new: Path, request: Request) -> Iterator[Path]:
    """The directory of the same request, if it was cut short, otherwise `new`; locked for the time of the block.

    `new` is ROOT/<date>/<time>; the other directories of ROOT are tried, the latest first.
    """
    for record in sorted(new.parent.parent.glob(f"*/*/{RECORD}"), reverse=True):
        if _is_unfinished(record.parent, request):
            with _locked(record.parent) as is_free:
                if is_free:
                    yield record.parent
                    return
    with _locked(new):
        yield new


def write_record(folder: Path, request: Request, is_complete: bool) -> None:
    """Write what was asked for, and whether all runs are completed or given up."""
    record = {"command": request.command, "inputs": request.fingerprint, "num_points": request.num_points}
    write_json(folder / RECORD, {**record, "completed": is_complete})


def count_not_begun(directories: Iterable[Path], run_dirs: Sequence[Path]) -> int:
    """How many runs the sweeps at or below these directories asked for in vain so far."""
    asked_for = [directory.resolve() for directory in directories]
    below = Counter(parent for run_dir in run_dirs for parent in run_dir.parents)
    known = set(run_dirs)
    missing = 0
    for folder in {*below, *asked_for}:
        if not any(folder.is_relative_to(directory) for directory in asked_for):
            continue  # only some runs of that sweep were asked for
        asked = _read_record(folder).get("num_points")
        if isinstance(asked, int):
            outside = [place for place in recorded_places(folder).values() if not place.is_relative_to(folder)]
            missing += max(asked - below[folder] - len(known.intersection(outside)), 0)
    return missing


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder's lock was free; it is held for the time of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _is_unfinished(folder: Path, request: Request) -> bool:
    record = _read_record(folder)
    is_same = record.get("inputs") == request.fingerprint and record["command"] == request.command
    return is_same and not record["completed"]


def _check_own(folder: Path, request: Request) -> None:
    """Refuse a folder that holds something else than what this request has left there."""
    if not folder.exists() or not any(path.name != LOCK for path in folder.iterdir()):
        return
    if _read_record(folder).get("inputs") != request.fingerprint:
        raise user_error(f"{folder} holds something else", "name a folder that is empty or new")


def _read_record(folder: Path) -> dict[str, Any]:
    """The content of sweep_command.json; empty where it cannot be read."""
    try:
        return read_object(folder / RECORD)
    except ValueError:
        return {}
