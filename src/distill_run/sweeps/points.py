"""The runs that directories hold, read from their files: how each ended, what it set, what it found."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from distill_run.record.status import RunStatus
from distill_run.store import canonical
from distill_run.sweeps.typed import DEFAULT, Command, natural, read_command

FORMAT = 1  # of report.json
GROUPS = {"teacher", "student", "dataset", "mode"}  # config.yaml has their options under `names`
STATUSES = ("completed", "pruned", "failed", "unfinished", "unreadable")
UNFINISHED = {
    "running": "still running, or killed without a word",
    "interrupted": "interrupted; resume= takes it up again",
}


@dataclass(frozen=True)
class Figures:
    """What is compared of a completed run: fractions, nats and seconds; None where there is no baseline or no gap."""

    val_accuracy: float
    val_nll: float
    test_accuracy: float
    teacher_test_accuracy: float
    baseline_val_accuracy: float | None
    baseline_test_accuracy: float | None
    difference: float | None  # of test accuracy: student - baseline
    gap_recovered: float | None
    agreement: float
    train_seconds: float


@dataclass(frozen=True)
class Findings:
    """The part of a completed run's report.json that a sweep's report needs."""

    figures: Figures
    seed: float
    dataset: dict[str, Any]
    architectures: tuple[str, str]  # of teacher and student
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One run directory. `status` is one of STATUSES; `error` says why a run is not completed."""

    run_dir: Path
    status: str
    error: str | None
    command: Command | None
    findings: Findings | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.yaml, read when it is first asked for; empty where it cannot be read."""
        try:
            text = (self.run_dir / "config.yaml").read_text(encoding="utf-8")
            config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def figures(self) -> Figures:
        """The figures of a completed run."""
        assert self.findings is not None
        return self.findings.figures

    def value(self, key: str) -> Any:
        """What the run has for a key of the command line, in canonical form."""
        if self.command is not None and key in (typed := self.command.values):
            return typed[key]
        path = ["names", key] if key in GROUPS else key.split(".")
        node: Any = self.config
        for part in path:
            node = node.get(part, DEFAULT) if isinstance(node, dict) else DEFAULT
        return DEFAULT if isinstance(node, dict) else _plain(node)


def _plain(value: Any) -> Any:
    """A value of YAML in canonical form; as a text what JSON does not know: dates, infinity."""
    try:
        json.dumps(canonical(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return canonical(value)


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """The run directories at or below the given ones, each once, in an order that is theirs: 2 before 10."""
    found = {run for directory in directories for run in _runs_below(directory.resolve())}
    return sorted(found, key=lambda path: [natural(part) for part in path.parts])


def _runs_below(folder: Path) -> list[Path]:
    if _is_run(folder):
        return [folder]
    below = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    return [run for each in below for run in _runs_below(each)]


def _is_run(folder: Path) -> bool:
    has = {name for name in ("status.json", "config.yaml", "environment.json") if (folder / name).is_file()}
    return "status.json" in has or {"config.yaml", "environment.json"} <= has


def read_point(run_dir: Path) -> Point:
    """The run in a directory; whatever is absent or damaged makes it unfinished or unreadable, never an error."""
    command, findings = None, None
    try:
        command = _read_command(run_dir / "environment.json")
        status, error = _read_status(run_dir / "status.json")
        if status == "completed":
            findings = _read_findings(run_dir / "report.json")
            if command is None:
                raise ValueError("environment.json is missing, and with it the command")
    except ValueError as damage:
        return Point(run_dir, "unreadable", str(damage), command, None)
    return Point(run_dir, status, error, command, findings)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; a ValueError names the file and says what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is damaged (it holds no object)")
    return content


def _read_command(path: Path) -> Command | None:
    if not path.exists():
        return None
    text = _read_object(path).get("command")
    if not isinstance(text, str):
        raise ValueError(f"{path.name} has no command")
    try:
        return read_command(text)
    except ValueError as error:
        raise ValueError(f"{path.name} has a damaged command ({error})") from None


def _read_status(path: Path) -> tuple[str, str | None]:
    """One of STATUSES, and why it is not the first."""
    if not path.exists():
        return "unfinished", "it has no status.json: it ended before its first training"
    content = _read_object(path)
    try:
        found = RunStatus.from_json(content)
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged ({error})") from None
    if found.status in UNFINISHED:
        return "unfinished", UNFINISHED[found.status]
    if found.status == "pruned":
        return found.status, "the search gave it up: others were better after as many epochs"
    return found.status, (found.error or "it does not say why") if found.status == "failed" else None


def _read_findings(path: Path) -> Findings:
    report = _read_object(path)
    if report.get("format") != FORMAT:
        raise ValueError(f"{path.name} has format {report.get('format')!r}; format {FORMAT} can be read")
    try:
        return Findings(
            figures=_read_figures(report),
            seed=_number(report["seed"]),
            dataset=dict(report["dataset"]),
            architectures=(str(report["teacher"]["architecture"]), str(report["student"]["architecture"])),
            warnings=tuple(map(str, report["warnings"])),
        )
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is damaged (wrong or absent: {error})") from None


def _read_figures(report: dict[str, Any]) -> Figures:
    student, baseline = report["student"], report["baseline"]
    selected, alone = student["selected"], None if baseline is None else baseline["selected"]
    test_accuracy = _number(selected["test"]["accuracy"])
    alone_test = None if alone is None else _number(alone["test"]["accuracy"])
    return Figures(
        val_accuracy=_number(selected["val"]["accuracy"]),
        val_nll=_number(selected["val"]["nll"]),
        test_accuracy=test_accuracy,
        teacher_test_accuracy=_number(report["teacher"]["selected"]["test"]["accuracy"]),
        baseline_val_accuracy=None if alone is None else _number(alone["val"]["accuracy"]),
        baseline_test_accuracy=alone_test,
        difference=None if alone_test is None else test_accuracy - alone_test,
        gap_recovered=None if report["gap_recovered"] is None else _number(report["gap_recovered"]),
        agreement=_number(report["fidelity"]["agreement"]),
        train_seconds=_number(student["train_seconds"]),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return value
