"""What the console says at the end of a sweep."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from distill_run.report.paired import Estimate
from distill_run.sweeps.report.sweep_report import BaselineReport, SettingReport, SweepReport
from distill_run.sweeps.values import short_keys, shown
from distill_run.units import NONE, change, percent, shown_path, with_spread

if TYPE_CHECKING:
    from distill_run.console.console import Console

MAX_SETTINGS = 10
SPREAD = "± is the standard deviation over the {}s of a row, in percentage points"


def tell_sweep_results(console: "Console", report: SweepReport, folder: Path) -> None:
    """Show a row for each setting and one for the baseline, the conclusion, and what to do next.

    The report lies in `folder`.
    """
    keys = list(short_keys(report.keys).values()) or [""]  # the baseline's row needs a cell for its name
    rows = [_row(setting, report.keys) for setting in report.settings[:MAX_SETTINGS]]
    if report.baseline is not None:
        rows.append(_baseline_row(report.baseline, len(keys)))
    count = f"{report.unit}s"
    headings = [*keys, count, "val acc", "test acc", "change"]
    console.table(headings, rows, num_texts=len(keys), spare=(count, "val acc"))
    if any(setting.replicates > 1 for setting in report.settings):
        console.note(SPREAD.format(report.unit))
    if len(report.settings) > MAX_SETTINGS:
        console.note(f"and {len(report.settings) - MAX_SETTINGS} more")
    others = [f"{count} {status}" for status, count in report.counts.items() if count and status != "completed"]
    if others:
        completed = f"{report.counts['completed']} of {sum(report.counts.values())} runs completed"
        console.note(", ".join([completed, *others]))
    console.conclude(report.conclusion)
    console.note(f"report   {shown_path(folder)}/sweep.html")
    if report.recommendation is not None and report.recommendation.command:
        console.note("repeat   " + report.recommendation.command.replace("\n", "\n         "))


def _row(setting: SettingReport, keys: tuple[str, ...]) -> list[str]:
    return [
        *([shown(setting.values[key]) for key in keys] or ["student"]),
        f"{setting.replicates} of {setting.asked}",
        _cell(setting.val_accuracy, percent),
        _cell(setting.test_accuracy, percent),
        _cell(setting.difference, change),
    ]


def _baseline_row(baseline: BaselineReport, num_texts: int) -> list[str]:
    cells = [_cell(found, percent) for found in (baseline.val_accuracy, baseline.test_accuracy)]
    return ["baseline", *[""] * (num_texts - 1), str(baseline.test_accuracy.count), *cells, ""]


def _cell(found: Estimate | None, show: Callable[[float], str]) -> str:
    return NONE if found is None else with_spread(show(found.mean), found.sd)
