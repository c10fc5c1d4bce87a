"""Two runs of the same settings side by side: what differs first, and what differs in their environments."""

import json
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from distill_run.files import RunFiles
from distill_run.tensor_files import load
from distill_run.typed_json import read_object

CLOCK = ("seconds", "train_seconds", "images_per_second", "data_share", "peak_memory_bytes", "speed", "exports")
WHO_AND_WHERE = ("command", "directory")  # of environment.json: they change no number

Figures = dict[str, Any]  # by their names, as in val.accuracy


def first_difference(before: RunFiles, now: RunFiles) -> str | None:
    """Where the later run left the earlier one, in words; None where data, figures and weights are equal to the bit.

    Raises ValueError or UserError for a file that cannot be read.
    """
    ours, theirs = read_object(before.report), read_object(now.report)
    told = [
        _different("report.json", _content(ours), _content(theirs)),
        _other_epoch(_epochs(before), _epochs(now)),
        _different("student.pt", _weights(before), _weights(now)),
        _different("report.json", dict(_numbers(ours)), dict(_numbers(theirs))),
    ]
    return next((text for text in told if text), None)


def other_environment(before: RunFiles, now: RunFiles) -> list[str]:
    """What differs in the two environment.json, a line for each key, but for what cannot change a number."""
    ours, theirs = read_object(before.environment), read_object(now.environment)
    keys = [key for key in {**ours, **theirs} if key not in WHO_AND_WHERE]
    return [
        f"environment.json, {key}: {_shown(ours, key)} then, {_shown(theirs, key)} now"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def _content(report: dict[str, Any]) -> Figures:
    """The sha256 of the dataset."""
    return {"dataset.content": report["dataset"]["content"]}


def _epochs(files: RunFiles) -> dict[str, Figures]:
    """The figures of each epoch, by its stage and number, in the order of training."""
    rows = [json.loads(line) for line in files.metrics.read_text(encoding="utf-8").splitlines()]
    return {f"{row['stage']}, epoch {row['epoch']}": dict(_numbers(row)) for row in rows}


def _other_epoch(before: dict[str, Figures], now: dict[str, Figures]) -> str | None:
    for (epoch, ours), (other, theirs) in zip(before.items(), now.items(), strict=False):
        if epoch != other:
            return f"metrics.jsonl: {epoch} then, {other} now"
        if text := _different(epoch, ours, theirs):
            return text
    return None if len(before) == len(now) else f"metrics.jsonl: {len(before)} epochs then, {len(now)} now"


def _weights(files: RunFiles) -> Figures:
    weights: Figures = load(files.student)["weights"]
    return weights


def _different(where: str, before: Figures, now: Figures) -> str | None:
    """The first figure that is not the same, or is there only once."""
    for name in {**before, **now}:
        if name not in before or name not in now or not _is_same(before[name], now[name]):
            return f"{where}, {name}: {_shown(before, name)} then, {_shown(now, name)} now"
    return None


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and one.equal(other)
    return bool(one == other)


def _shown(values: Figures, name: str) -> str:
    value = values.get(name)
    if isinstance(value, Tensor):
        return f"norm {value.float().norm().item()!r}"
    return str(value) if name in values else "absent"


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """All numbers in plain containers, by their full names, but for those that a clock decides."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key not in CLOCK:
            yield from _numbers(child, f"{name}.{key}" if name else str(key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
