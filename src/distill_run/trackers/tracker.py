"""What every tracker does: it is told of a run as a watcher is, and cannot harm it."""

import dataclasses
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_run.errors import first_line
from distill_run.files import RunFiles
from distill_run.record.status import RunStatus, status_after
from distill_run.report.cells import NETWORK_COLUMNS, network_rows
from distill_run.report.run_report import RunReport, read_report
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import RunFacts, StageFacts, Watcher
from distill_run.sweeps.request import RECORD

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What a completed run found out: figures by name, the table of its networks, its pictures, its page."""

    figures: dict[str, float]
    columns: list[str]
    rows: list[list[str]]
    conclusion: str
    pictures: list[Path]
    page: Path


class Tracker(Watcher):
    """A watcher that sends a run's figures elsewhere; derive it and define the four methods at its end.

    Whatever they raise becomes one warning; then the tracker is silent, and the run goes on. They cannot change the
    random numbers that the run draws. A run that is resumed goes on in the tracker as well: no epoch is told twice.
    """

    _run: RunFacts
    _told: set[tuple[str, int]]  # the stages and epochs that the tracker knows
    _is_search = False
    _has_failed = False

    def run_begun(self, run: RunFacts) -> None:
        """See Watcher."""
        self._run = run
        self._told = set()
        self._attempt(lambda: self._begin(run))

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher. The trainings of a learning-rate search are not tracked."""
        self._is_search = stage.is_search

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        epoch = (row["stage"], row["epoch"])
        if self._is_search or epoch in self._told:
            return
        self._told.add(epoch)
        figures = flat({name: value for name, value in row.items() if name not in ("stage", "epoch")}, "/")
        self._attempt(lambda: self.add_epoch(tag(row["stage"]), row["epoch"], {tag(k): v for k, v in figures.items()}))

    def training_ended(self) -> None:
        """See Watcher."""
        self._is_search = False

    def stage_ended(self, trained: Trained) -> None:
        """See Watcher. What was reused from the store has a history as well."""
        for row in trained.history:
            self.epoch_ended(row)

    def run_ended(self, error: BaseException | None) -> None:
        """See Watcher."""
        if error is None:
            self._attempt(lambda: self.add_results(results_of(read_report(self._run.run_dir))))
        self._attempt(lambda: self.end(status_after(error)), anyway=True)

    def _attempt(self, action: Callable[[], None], *, anyway: bool = False) -> None:
        """Do it unless the tracker has failed, or `anyway`; a failure is told once."""
        if self._has_failed and not anyway:
            return
        try:
            with _same_random_numbers():
                action()
        except Exception as error:
            log.info("the tracker failed", exc_info=True)
            if self._has_failed:
                return
            self._has_failed = True
            what = f"{type(error).__name__}: {first_line(error)}"
            self._run.warn(f"{type(self).__name__} has failed and tracks no more of this run, which goes on ({what})")

    def _begin(self, run: RunFacts) -> None:
        if run.settings.resume:
            self._told = _epochs_before(run)
        self.begin(run)

    def begin(self, run: RunFacts) -> None:
        """A run begins, or goes on where `run.settings.resume` is set."""

    def add_epoch(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """An epoch of a stage, as in student or student_2, has these figures, named as in val/accuracy."""

    def add_results(self, results: Results) -> None:
        """The run is completed, and its report is written."""

    def end(self, status: RunStatus) -> None:
        """The run has ended, completed or not."""


def run_name(run_dir: Path) -> str:
    """A run's name in a tracker: the last two parts of its folder, as in 2026-11-26/03-20-20-721082."""
    return "/".join(run_dir.resolve().parts[-2:])


def sweep_name(run_dir: Path) -> str | None:
    """The name of the sweep or search whose point a run is; None for a single run."""
    parent = run_dir.resolve().parent
    return run_name(parent) if (parent / RECORD).is_file() else None


def results_of(report: RunReport) -> Results:
    """What a tracker shows of a report."""
    files = RunFiles(report.run_dir)
    return Results(
        figures=_final_figures(report),
        columns=["network", *NETWORK_COLUMNS.values()],
        rows=network_rows(report.networks),
        conclusion=report.conclusion,
        pictures=sorted(files.plots.glob("*.png")),
        page=files.report_page,
    )


def _final_figures(report: RunReport) -> dict[str, float]:
    """Test figures and costs of each network; of several repeats, the means as well."""
    found: dict[str, Any] = {
        "student_accuracy": report.student_accuracy,
        "baseline_accuracy": report.baseline_accuracy,
        "change": report.change,
        "gap_recovered": report.gap_recovered,
        "agreement": report.fidelity.agreement,
    }
    stages = Counter[str]()
    for stage, network in report.networks:
        stages[stage] += 1
        found[stage if stages[stage] == 1 else f"{stage}_{stages[stage]}"] = {
            "test": vars(network.selected.test),
            **{name: getattr(network, name) for name in ("params", "macs", "bytes", "train_seconds")},
        }
    return flat(found, "/")


def configuration(run: RunFacts) -> dict[str, Any]:
    """The settings as plain containers, with the command and the run's directory."""
    own = {"command": run.environment["command"], "run_dir": str(run.run_dir.resolve())}
    return {**own, **dataclasses.asdict(run.settings)}


def flat(node: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """The values of nested mappings by the names on the way to them; those that are None are left out."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            found |= {f"{name}{separator}{rest}": leaf for rest, leaf in flat(value, separator).items()}
        elif value is not None:
            found[str(name)] = value
    return found


def tag(text: str) -> str:
    """A name with the characters that every tracker takes: `student 2` becomes student_2."""
    return re.sub(r"[^\w./-]", "_", text)


def _epochs_before(run: RunFacts) -> set[tuple[str, int]]:
    """The epochs of an interrupted run, which the tracker was told before."""
    path = RunFiles(run.run_dir).metrics
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.is_file() else [])
    return {(row["stage"], row["epoch"]) for row in rows}


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """After the block, the global generators of the CPU stand where they stood before it."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what others draw from
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
