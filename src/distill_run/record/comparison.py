"""Two runs of the same settings side by side: what differs first, and what differs in their environments."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from distill_run.errors import UserError, user_error
from distill_run.files import RunFiles, read_json_lines
from distill_run.tensor_files import load
from distill_run.typed_json import read_object

CLOCK = ("seconds", "train_seconds", "images_per_second", "data_share", "peak_memory_bytes", "speed", "exports")
WHO_AND_WHERE = ("command", "directory")  # of environment.json: they change no number

Figures = dict[str, Any]  # by their names, as in val.accuracy


@dataclass(frozen=True)
class Recorded:
    """What a completed run has left that another one of the same settings must leave as well.

    `epochs` holds the figures of each epoch, by its stage and number, in the order of training.
    """

    content: Figures
    epochs: dict[str, Figures]
    weights: Figures
    figures: Figures
    environment: dict[str, Any]

    @classmethod
    def read(cls, files: RunFiles) -> Self:
        """What the files of a run say; raises UserError that names the run where they cannot be read."""
        try:
            report = read_object(files.report)
            rows = read_json_lines(files.metrics)
            return cls(
                content={"dataset.content": report["dataset"]["content"]},
                epochs={f"{row['stage']}, epoch {row['epoch']}": dict(_numbers(row)) for row in rows},
                weights=load(files.student)["weights"],
                figures=dict(_numbers(report)),
                environment=read_object(files.environment),
            )
        except UserError:
            raise
        except (LookupError, TypeError, ValueError) as damage:
            what = f"the files of {files.run_dir} are damaged: {type(damage).__name__} {damage}"
            raise user_error(what, "a run can be compared as it was left only") from damage


def first_difference(before: Recorded, now: Recorded) -> str | None:
    """Where the later run left the earlier one, in words; None where data, figures and weights are equal to the bit."""
    told = [
        _different("report.json", before.content, now.content),
        _other_epoch(before.epochs, now.epochs),
        _different("student.pt", before.weights, now.weights),
        _different("report.json", before.figures, now.figures),
    ]
    return next((text for text in told if text), None)


def other_environment(before: Recorded, now: Recorded) -> list[str]:
    """What differs in the two environment.json, a line for each key, but for what cannot change a number."""
    ours, theirs = before.environment, now.environment
    return [
        f"environment.json, {key}: {_shown(ours, key)} then, {_shown(theirs, key)} now"
        for key in {**ours, **theirs}
        if key not in WHO_AND_WHERE and ours.get(key) != theirs.get(key)
    ]


def _other_epoch(before: dict[str, Figures], now: dict[str, Figures]) -> str | None:
    for (epoch, ours), (other, theirs) in zip(before.items(), now.items(), strict=False):
        if epoch != other:
            return f"metrics.jsonl: {epoch} then, {other} now"
        if text := _different(epoch, ours, theirs):
            return text
    return None if len(before) == len(now) else f"metrics.jsonl: {len(before)} epochs then, {len(now)} now"


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
