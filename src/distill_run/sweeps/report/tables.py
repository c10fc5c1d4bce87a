"""The tables of a sweep: settings, runs and runs without a result on its pages, and sweep.csv."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_run.engine.selection import FIGURE_NAMES
from distill_run.files import RunFiles
from distill_run.report.paired import Estimate
from distill_run.safe_text import csv_lines
from distill_run.sweeps.report.answers import ALIKE
from distill_run.sweeps.report.sweep_report import FILE_NAME as SETTINGS_FILE
from distill_run.sweeps.report.sweep_report import BaselineReport, RunEntry, SettingReport, SweepReport
from distill_run.sweeps.setting import FIGURES
from distill_run.sweeps.values import short_keys, shown
from distill_run.units import NONE, change, duration, p_value, percent, shorten, whole_percent, with_spread

MAX_ERROR_LENGTH = 400
RUNS_FILE = "sweep.csv"
P_HEADING = "p (Holm)"


@dataclass(frozen=True)
class Column:
    """How a figure of the settings is shown: its heading, its mean, and whether with deviation and interval."""

    heading: str
    show: Callable[[float], str]
    has_spread: bool = False


# A column that no setting has a figure for is left out; so are the baselines where one row holds them.
COLUMNS = {
    "val_accuracy": Column("validation", percent, has_spread=True),
    "test_accuracy": Column("test", percent, has_spread=True),
    "difference": Column("change", change, has_spread=True),
    "gap_recovered": Column("gap recovered", whole_percent, has_spread=True),
    "agreement": Column("agreement", percent),
    "baseline_test_accuracy": Column("baseline's test", percent, has_spread=True),
    "teacher_test_accuracy": Column("teacher's test", percent),
    "train_seconds": Column("trained in", duration),
}
RUN_COLUMNS = {
    "val_accuracy": "validation",
    "test_accuracy": "test",
    "baseline_test_accuracy": "baseline's test",
    "difference": "change",
    "agreement": "agreement",
}


@dataclass(frozen=True)
class Cell:
    """The text of a cell, a smaller note below it, and the file that it links to."""

    text: str
    note: str = ""
    link: str | None = None


@dataclass(frozen=True)
class Table:
    """Headings and rows; the first `num_texts` columns are texts, the others are figures.

    `footer` are rows that stay in sight where a long table is folded. Of a very long one, a page shows the first rows;
    the file `whole`, beside the page, has all.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    num_texts: int
    whole: str
    footer: Sequence[Sequence[Cell]] = ()


def settings_table(report: SweepReport) -> Table:
    """A row for each setting, the recommended one first, then the others by validation; the last is the baseline's."""
    columns = _shown_columns(report)
    has_p = any(setting.corrected_p is not None for setting in report.settings)
    is_replicated = any(setting.replicates > 1 for setting in report.settings)
    without_interval = NONE if is_replicated else ""  # a column of dashes says nothing
    rows = []
    for index, setting in enumerate(report.settings):
        row = [Cell(_rank(index, report)), *(Cell(shown(setting.values[key])) for key in report.keys)]
        row.append(Cell(_num_replicates(setting)))
        row += [_estimate(setting.figure(name), column, without_interval) for name, column in columns.items()]
        rows.append([*row, Cell(p_value(setting.corrected_p))] if has_p else row)
    footer = [] if report.baseline is None else [_baseline_row(report.baseline, len(report.keys), columns, has_p)]
    headings = [
        "",
        *short_keys(report.keys).values(),
        f"{report.unit}s",
        *(column.heading for column in columns.values()),
    ]
    if has_p:
        headings.append(P_HEADING)
    title = "Settings" if report.recommendation is None else "Settings, ranked by validation"
    return Table(title, headings, rows, 1 + len(report.keys), SETTINGS_FILE, footer)


def _baseline_row(baseline: BaselineReport, num_keys: int, columns: Iterable[str], has_p: bool) -> list[Cell]:
    found = baseline_figures(baseline)
    row = [Cell("baseline"), *[Cell("")] * num_keys, Cell(str(baseline.test_accuracy.count))]
    row += [_estimate(found[name], COLUMNS[name], "") if name in found else Cell("") for name in columns]
    return [*row, Cell("")] if has_p else row


def _shown_columns(report: SweepReport) -> dict[str, Column]:
    """The columns of the settings' table, by the names of their figures."""
    columns = {}
    if len(report.select_by) == 1 and report.select_by != ("accuracy",):
        columns["val_selection"] = _selection_column(report.select_by[0])
    for name, column in COLUMNS.items():
        is_in_row = name == "baseline_test_accuracy" and report.baseline is not None
        if not is_in_row and any(setting.figure(name) is not None for setting in report.settings):
            columns[name] = column
    return columns


def _selection_column(select_by: str) -> Column:
    is_share = select_by != "nll"
    return Column(
        f"validation {FIGURE_NAMES[select_by]}", percent if is_share else "{:.3f}".format, has_spread=is_share
    )


def baseline_figures(baseline: BaselineReport) -> dict[str, Estimate]:
    """The baseline's figures by the names of the settings' columns."""
    return {"val_accuracy": baseline.val_accuracy, "test_accuracy": baseline.test_accuracy}


def _rank(index: int, report: SweepReport) -> str:
    if report.recommendation is None or not report.settings[index].replicates:
        return NONE
    return f"{index + 1} {ALIKE}" if index in report.recommendation.peers else str(index + 1)


def _num_replicates(setting: SettingReport) -> str:
    is_complete = setting.replicates == setting.asked
    return str(setting.replicates) if is_complete else f"{setting.replicates} of {setting.asked}"


def _estimate(found: Estimate | None, column: Column, without_interval: str) -> Cell:
    if found is None:
        return Cell(NONE)
    if not column.has_spread:
        return Cell(column.show(found.mean))
    note = without_interval
    if found.low is not None and found.high is not None:
        note = f"{column.show(found.low)} to {column.show(found.high)}"
    return Cell(with_spread(column.show(found.mean), found.sd), note)


def runs_table(report: SweepReport) -> Table:
    """A row for each run."""
    figures = [name for name in RUN_COLUMNS if any(run.figure(name) is not None for run in report.runs)]
    keys = [*report.keys, *report.replicate_keys]
    has_repeats = report.unit == "seed"
    rows = []
    for run in report.runs:
        link = RunFiles(Path(run.directory)).report_page.as_posix() if run.status == "completed" else None
        numbers = [str(run.seeds)] if has_repeats else []
        numbers += [(change if name == "difference" else percent)(run.figure(name)) for name in figures]
        rows.append([Cell(run.directory, link=link), *map(Cell, [run.status, *_values(run, keys), *numbers])])
    headings = ["run", "status", *short_keys(keys).values(), *(["seeds"] if has_repeats else [])]
    headings += [RUN_COLUMNS[name] for name in figures]
    return Table("Runs", headings, rows, 2 + len(keys), RUNS_FILE)


def troubles_table(report: SweepReport) -> Table | None:
    """A row with the reason for each run that is not completed; None where all are."""
    keys = [*report.keys, *report.replicate_keys]
    rows = []
    for run in report.runs:
        if run.status != "completed":
            reason = shorten(run.error or NONE, MAX_ERROR_LENGTH)
            rows.append([Cell(text) for text in (run.directory, run.status, *_values(run, keys), reason)])
    headings = ["run", "status", *short_keys(keys).values(), "reason"]
    return Table("Runs without a result", headings, rows, len(headings), RUNS_FILE) if rows else None


def _values(run: RunEntry, keys: Sequence[str]) -> list[str]:
    return [shown(run.values[key]) for key in keys]


def to_csv(report: SweepReport) -> str:
    """The content of sweep.csv: a row for each run, below a header; a cell is empty where there is no value."""
    keys = [key for key in (*report.keys, *report.replicate_keys) if key != "seed"]
    rows: list[list[Any]] = [["directory", "status", "error", *keys, "seed", *FIGURES, "command"]]
    for run in report.runs:
        values = [shown(run.values[key]) for key in keys]
        figures = [run.figure(name) for name in FIGURES]
        rows.append([run.directory, run.status, run.error, *values, run.seed, *figures, run.command])
    return csv_lines(rows)
