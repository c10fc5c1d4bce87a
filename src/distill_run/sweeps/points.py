"""The runs below some directories, read from their files: how each run ended, its keys, and its figures."""

import dataclasses
import json
import os
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from distill_run.errors import user_error
from distill_run.files import RunFiles
from distill_run.fingerprints import canonical
from distill_run.record.status import read_status
from distill_run.report.network_report import RepeatReport
from distill_run.report.run_report import RunReport, read_report
from distill_run.store_records import META
from distill_run.sweeps.command_lines import DEFAULT, CommandLine, read_command_line
from distill_run.sweeps.places import POINTS, recorded_places
from distill_run.sweeps.values import natural
from distill_run.typed_json import read_object

GROUPS = {"teacher", "student", "dataset", "mode"}  # config.yaml has their chosen options under `names`
STATUSES = ("completed", "pruned", "failed", "unfinished", "unreadable")
UNFINISHED = {
    "running": "still running, or killed",
    "interrupted": "interrupted; resume= continues it",
}
# What a sweep does not compare: of thousands of runs it would fill the memory.
DETAILS: dict[str, Any] = {"classes": (), "calibration": {}, "robustness": None, "agreement_by_teacher": None}
PRUNED = "the search stopped it: other trials were better after the same number of epochs"


@dataclass(frozen=True)
class Figures:
    """The figures of a completed run that are compared: fractions, nats and seconds; of several repeats, the means.

    A field is None where the run has no baseline, or no gap to recover. Of several repeats, the agreement is
    that of the student to ship.
    """

    val_accuracy: float
    val_nll: float
    test_accuracy: float
    teacher_test_accuracy: float
    baseline_val_accuracy: float | None
    baseline_test_accuracy: float | None
    difference: float | None  # of test accuracy: student - baseline
    gap_recovered: float | None
    agreement: float | None
    train_seconds: float
    val_selection: float  # the validation figure that selects: see RunReport.select_by


@dataclass(frozen=True)
class Replicate:
    """One seed of a completed run: the report and the figures that a run of this seed alone would have."""

    point: "Point"
    report: RunReport
    figures: Figures


@dataclass(frozen=True)
class Point:
    """One run of a sweep. `status` is one of STATUSES; `error` says why a run is not completed.

    Only a completed run has a `report`, without its DETAILS. `command` is None where it cannot be read.
    """

    run_dir: Path
    status: str
    error: str | None
    command: CommandLine | None
    report: RunReport | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.yaml, read when it is first needed; empty where it cannot be read."""
        try:
            text = RunFiles(self.run_dir).config.read_text(encoding="utf-8")
            config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return {}
        return config if isinstance(config, dict) else {}

    @cached_property
    def figures(self) -> Figures:
        """The figures of a completed run."""
        assert self.report is not None
        return _figures(self.report)

    @cached_property
    def replicates(self) -> list[Replicate]:
        """A replicate for each seed of a completed run; none of any other run."""
        if self.report is None:
            return []
        if len(self.report.repeats) < 2:
            return [Replicate(self, self.report, self.figures)]
        return [_replicate(self, self.report, repeat) for repeat in self.report.repeats]

    @cached_property
    def seeds(self) -> list[Any]:
        """The seeds that the run has, or was to have."""
        if self.report is not None:
            return [replicate.report.seed for replicate in self.replicates]
        first, repeats = self.value("seed"), self.value("repeats")
        if isinstance(first, int) and isinstance(repeats, int):
            return list(range(first, first + repeats))
        return [first]

    def value(self, key: str) -> Any:
        """The run's value of a key: from its command, otherwise from its configuration, otherwise DEFAULT."""
        if self.command is not None and key in (values := self.command.values):
            return values[key]
        path = ["names", key] if key in GROUPS else key.split(".")
        node: Any = self.config
        for part in path:
            node = node.get(part, DEFAULT) if isinstance(node, dict) else DEFAULT
        return DEFAULT if isinstance(node, dict) else _comparable(node)


def _figures(report: RunReport) -> Figures:
    baselines = [baseline.selected.val.accuracy for baseline in report.baselines]
    return Figures(
        val_accuracy=report.val_accuracy,
        val_nll=fmean(student.selected.val.nll for student in report.students),
        test_accuracy=report.student_accuracy,
        teacher_test_accuracy=report.teacher.selected.test.accuracy,
        baseline_val_accuracy=fmean(baselines) if baselines else None,
        baseline_test_accuracy=report.baseline_accuracy,
        difference=report.change,
        gap_recovered=report.gap_recovered,
        agreement=report.fidelity.agreement,
        train_seconds=report.student.train_seconds,
        val_selection=abs(report.val_goodness),
    )


def _replicate(point: Point, report: RunReport, repeat: RepeatReport) -> Replicate:
    single = dataclasses.replace(report, seed=repeat.seed, baseline=repeat.baseline, student=repeat.student, repeats=())
    # An old report knows the fidelity of the student to ship alone; the gap is that of all repeats together.
    fidelity = report.fidelity if repeat.seed == report.shipped_seed else repeat.fidelity
    agreement = None if fidelity is None else fidelity.agreement
    return Replicate(point, single, dataclasses.replace(_figures(single), gap_recovered=None, agreement=agreement))


def _comparable(value: Any) -> Any:
    """A value of YAML in the form of `read_value`; a text where JSON cannot hold it, as with dates and infinity."""
    try:
        json.dumps(canonical(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return canonical(value)


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """The run directories at or below the given ones, each once, sorted by name: 2 before 10.

    Those that a sweep has written down as its own are among them, wherever they lie, also where they are gone. Entries
    of a store are left out. Raises UserError where a folder must not be read.
    """
    found = {run for directory in directories for run in _runs_below(directory.resolve())}
    return sorted(found, key=lambda path: [natural(part) for part in path.parts])


def read_points(directories: Iterable[Path]) -> list[Point]:
    """The runs at or below some directories, in the order of `find_runs`."""
    return [read_point(run_dir) for run_dir in find_runs(directories)]


def _runs_below(folder: Path) -> list[Path]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:  # removed since its parent was read, as a store's working folders are
        return []
    except PermissionError as error:
        raise user_error(f"{folder} cannot be read ({error.strerror})", "ask for the right to read it") from error
    names = {entry.name for entry in entries}
    if META in names:  # an entry of a store
        return []
    runs = list(recorded_places(folder).values()) if POINTS in names else []
    if _is_run(folder, names):
        return [folder, *runs]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):  # a store works in hidden folders
            runs += _runs_below(Path(entry.path))
    return runs


def _is_run(folder: Path, names: Container[str]) -> bool:
    """Whether a folder that holds these names is a run; a run that was killed early has no status.json."""
    files = RunFiles(folder)
    return files.status.name in names or (files.config.name in names and files.environment.name in names)


def read_point(run_dir: Path) -> Point:
    """The run in a directory. A file that is absent or damaged makes it unfinished or unreadable; nothing is raised."""
    command, report = None, None
    if not run_dir.is_dir():
        return Point(run_dir, "unreadable", "its folder is not there any more", None, None)
    try:
        command = _read_command(RunFiles(run_dir).environment)
        status, error = _read_status(run_dir)
        if status == "completed":
            report = dataclasses.replace(read_report(run_dir), **DETAILS)
            if command is None:
                raise ValueError("environment.json is missing, and with it the command")
    except ValueError as damage:
        return Point(run_dir, "unreadable", str(damage), command, None)
    return Point(run_dir, status, error, command, report)


def _read_command(path: Path) -> CommandLine | None:
    if not path.exists():
        return None
    text = read_object(path).get("command")
    if not isinstance(text, str):
        raise ValueError(f"{path.name} has no command")
    try:
        return read_command_line(text)
    except ValueError as error:
        raise ValueError(f"{path.name} has a damaged command ({error})") from None


def _read_status(run_dir: Path) -> tuple[str, str | None]:
    """One of STATUSES, and why the run is not completed."""
    found = read_status(run_dir)
    if found is None:
        return "unfinished", "it has no status.json: it ended before its first training"
    if found.status in UNFINISHED:
        return "unfinished", UNFINISHED[found.status]
    if found.status == "failed":
        return "failed", found.error or "no reason is recorded"
    return found.status, PRUNED if found.status == "pruned" else None
