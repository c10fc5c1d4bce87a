"""A sweep from outside its points: what a preset stands for, and the directory that it takes or goes on with.

A sweep's directory holds sweep_command.json, which says what was asked for, and a lock while a process works at it.
The same command, typed again after the first was killed, finds the directory and runs what is left.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import ValueType

from distill_run.build import folder_hash
from distill_run.config.compose import command_line, compose_config
from distill_run.config.explain import explain
from distill_run.config.overrides import COMPOSITION_ERRORS, parse, text_of, values_of
from distill_run.config.schema import Settings
from distill_run.errors import UserError, user_error
from distill_run.files import write_json
from distill_run.store import fingerprint

RECORD = "sweep_command.json"
LOCK = ".lock"


def expand_presets(overrides: list[str], extra_dir: Path | None) -> tuple[list[str], bool]:
    """The command line with each `+sweep=NAME` replaced by the values that it stands for, and whether there was one.

    A key that the command line names itself keeps the command line's value. Raises UserError for an unknown preset.
    """
    parsed = parse(overrides)
    presets = [f"+{text_of(override).removeprefix('+')}" for override in parsed if override.key_or_group == "sweep"]
    if not presets:
        return overrides, False
    try:
        compose_config(presets, extra_dir)
    except COMPOSITION_ERRORS as error:
        raise UserError(explain(presets, extra_dir, error)) from error
    params = HydraConfig.get().sweeper.params
    own = [override for override in parsed if override.key_or_group != "sweep"]
    named = {override.key_or_group for override in own}
    values = [f"{key}={value}" for key, value in params.items() if key not in named]
    return [*values, *(text_of(override) for override in own)], True


def swept_keys(overrides: list[str]) -> list[str]:
    """The keys that are given several values."""
    return [override.key_or_group for override in parse(overrides) if override.is_sweep_override()]


def count_points(overrides: list[str]) -> int | None:
    """How many combinations the swept values have; None where a pattern such as glob(*) says which there are."""
    swept = [override for override in parse(overrides) if override.is_sweep_override()]
    if any(override.value_type is ValueType.GLOB_CHOICE_SWEEP for override in swept):
        return None
    return math.prod(len(values_of(override)) for override in swept)


def completed_accuracy(run_dir: Path) -> float | None:
    """The student's validation accuracy of a point that is completed; None for any other."""
    status, report = (_read(run_dir / name) for name in ("status.json", "report.json"))
    if status.get("status") != "completed" or not report:
        return None
    accuracy: float = report["student"]["selected"]["val"]["accuracy"]
    return accuracy


def record_failure(run_dir: Path, error: UserError, overrides: Sequence[str], code_dir: str | None) -> None:
    """Leave the error of a point, and its command, in its files, where the sweep's report looks for them."""
    if not (run_dir / "environment.json").is_file():  # it failed before the run wrote anything
        write_json(run_dir / "environment.json", {"command": command_line(overrides, code_dir)})
    write_json(run_dir / "status.json", {"status": "failed", "error": str(error)})


@dataclass(frozen=True)
class Request:
    """What a sweep was asked for: the command, and a fingerprint of all that it means (settings, own code)."""

    command: str
    inputs: str

    @classmethod
    def of(cls, command: str, settings: Sequence[Settings], extra_dir: Path | None) -> "Request":
        """The request of a command whose swept values have these settings."""
        code = folder_hash(extra_dir) if extra_dir else None
        inputs = {"settings": [dataclasses.asdict(each) for each in settings], "code": code}
        return cls(command, fingerprint(inputs))


@contextmanager
def named_directory(folder: Path, request: Request) -> Iterator[Path]:
    """The directory that the user names for a sweep, locked for the time of the block.

    Raises UserError where it belongs to something else, or to a process that is running.
    """
    _check_own(folder, request)
    with _locked(folder) as is_free:
        if not is_free:
            raise user_error(f"another process is at work in {folder}", "wait for it, or stop it")
        yield from _recorded(folder, request)


@contextmanager
def dated_directory(new: Path, request: Request) -> Iterator[Path]:
    """The directory of the same request, if it was cut short, otherwise `new`; locked for the time of the block.

    `new` is ROOT/<date>/<time>; the others of ROOT are looked at, from the latest on.
    """
    for record in sorted(new.parent.parent.glob(f"*/*/{RECORD}"), reverse=True):
        if _is_unfinished(record.parent, request):
            with _locked(record.parent) as is_free:
                if is_free:
                    yield from _recorded(record.parent, request)
                    return
    with _locked(new):
        yield from _recorded(new, request)


def _recorded(folder: Path, request: Request) -> Iterator[Path]:
    """Write the record of a sweep, which says at the end that all its points are completed."""
    record = {"command": request.command, "inputs": request.inputs}
    write_json(folder / RECORD, {**record, "completed": False})
    yield folder
    statuses = [json.loads(path.read_text())["status"] for path in folder.rglob("status.json")]
    write_json(folder / RECORD, {**record, "completed": set(statuses) <= {"completed", "pruned"}})


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
    record = _read(folder / RECORD)
    return record.get("inputs") == request.inputs and record["command"] == request.command and not record["completed"]


def _check_own(folder: Path, request: Request) -> None:
    """Refuse a folder that has something else in it than what this request has left there."""
    if not folder.exists() or not any(path.name != LOCK for path in folder.iterdir()):
        return
    if _read(folder / RECORD).get("inputs") != request.inputs:
        raise user_error(f"{folder} holds something else", "name a folder that is empty or new")


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing of one that cannot be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
