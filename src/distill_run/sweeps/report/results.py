"""What the console says at the end of a sweep."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from distill_run.sweeps.estimates import Estimate
from distill_run.sweeps.report.sweep_report import SettingReport, SweepReport
from distill_run.sweeps.values import shown
from distill_run.units import NONE, change, percent, shown_path, with_spread

if TYPE_CHECKING:
    from distill_run.console import Console

MAX_SETTINGS = 10


def tell_sweep_results(console: "Console", report: SweepReport, folder: Path) -> None:
    """Show a row for each setting, the conclusion, and what to do next; the report lies in `folder`."""
    headings = [*report.keys, "runs", "val acc", "test acc", "change"]
    rows = [_row(setting, report.keys) for setting in report.settings[:MAX_SETTINGS]]
    console.table(headings, rows, num_texts=len(report.keys))
    if len(report.settings) > MAX_SETTINGS:
        console.note(f"and {len(report.settings) - MAX_SETTINGS} more")
    unfinished = [f"{count} {status}" for status, count in report.counts.items() if count and status != "completed"]
    if unfinished:
        console.note(f"without a result: {', '.join(unfinished)}")
    console.conclude(report.conclusion)
    console.note(f"report   {shown_path(folder)}/sweep.html")
    if report.recommendation is not None and report.recommendation.command:
        console.note("repeat   " + report.recommendation.command.replace("\n", "\n         "))


def _row(setting: SettingReport, keys: tuple[str, ...]) -> list[str]:
    return [
        *(shown(setting.values[key]) for key in keys),
        f"{setting.replicates} of {setting.asked}",
        _cell(setting.val_accuracy, percent),
        _cell(setting.test_accuracy, percent),
        _cell(setting.difference, change),
    ]


def _cell(found: Estimate | None, show: Callable[[float], str]) -> str:
    return NONE if found is None else with_spread(show(found.mean), found.sd)
