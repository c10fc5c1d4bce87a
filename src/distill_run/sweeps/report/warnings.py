"""What the reader of a sweep's report is warned of."""

import re
from collections.abc import Sequence

from distill_run.engine.selection import FIGURE_NAMES, figure_names
from distill_run.report.run_report import RunReport
from distill_run.sweeps.grouping import Sweep
from distill_run.sweeps.recommendation import Recommendation
from distill_run.sweeps.values import setting_name
from distill_run.units import counted

NUMBER = re.compile(r"\d+(\.\d+)?")


def warnings_of(sweep: Sweep, reports: Sequence[RunReport], unit: str) -> tuple[str, ...]:
    """The warnings of a sweep, then those of its completed runs, which have these `reports`; `unit` is run or seed."""
    runs = _counted([_told(report) for report in reports])
    return (*_differences(sweep, unit), *_lucky(sweep.recommendation, unit), *runs)


def _told(report: RunReport) -> list[str]:
    """The warnings of a run, and its failures that no warning begins with: most go on with what helps."""
    alone = [each for each in report.failures if not any(warning.startswith(each) for warning in report.warnings)]
    return [*report.warnings, *alone]


def _differences(sweep: Sweep, unit: str) -> list[str]:
    """Warnings of runs that are not comparable, and of seeds that are not counted."""
    warnings = []
    if sweep.num_datasets > 1:
        warnings.append(f"the runs used {sweep.num_datasets} different datasets: their accuracies cannot be compared")
    if len(sweep.select_by) > 1:
        warnings.append(
            f"the runs were selected by different figures ({figure_names(sweep.select_by)}): they are ranked apart; "
            "give all of them one training.select_by"
        )
    options = {" ".join(point.command.options) for point in sweep.points if point.command is not None}
    if len(options) > 1:
        listed = ", ".join(each or "none" for each in sorted(options))
        warnings.append(f"the runs were started with different options ({listed}): a key may not mean the same in all")
    num_completed = sum(len(point.replicates) for point in sweep.points)
    num_spare = num_completed - sum(len(setting.replicates) for setting in sweep.settings)
    if num_spare:
        spare = counted(num_spare, unit)
        warnings.append(
            f"{spare} repeated another run with the same seed: only the first of each counts"
            if unit == "run"
            else f"{spare} had been run before in the same setting: only the first run of each counts"
        )
    return warnings


def _lucky(best: Recommendation | None, unit: str) -> list[str]:
    """Warnings of incomplete settings that are better on validation than the recommended one."""
    warnings = []
    for setting in best.incomplete if best else []:
        assert best is not None
        if setting.goodness > best.setting.goodness:
            assert setting.select_by is not None
            figure, value = FIGURE_NAMES[setting.select_by], abs(setting.goodness)
            of_all = f"{len(setting.replicates)} of {counted(len(best.setting.replicates), unit)}"
            shown_value = f"{value:.3f}" if setting.select_by == "nll" else f"{value:.2%}"
            warnings.append(
                f"{setting_name(setting.values)} has {shown_value} {figure} on validation, better than what is "
                f"recommended, but only {of_all}: it was not considered"
            )
    return warnings


def _counted(warnings: Sequence[Sequence[str]]) -> list[str]:
    """The warnings of the runs, each once with its number of runs.

    Texts that differ only in their numbers count as one.
    """
    kinds: dict[str, list[str]] = {}
    for texts in warnings:
        for kind, text in {NUMBER.sub("0", text): text for text in texts}.items():
            kinds.setdefault(kind, []).append(text)
    found = []
    for texts in sorted(kinds.values(), key=len, reverse=True):
        others = ", with other numbers in some" if len(set(texts)) > 1 else ""
        found.append(f"{texts[0]} ({len(texts)} of {counted(len(warnings), 'run')}{others})")
    return found
