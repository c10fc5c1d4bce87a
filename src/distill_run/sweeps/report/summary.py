"""From a grouped sweep to its report: sweep.json and its conclusion."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distill_run.engine.selection import figure_names
from distill_run.report.paired import Estimate, contains, holm
from distill_run.report.run_report import RunReport
from distill_run.sweeps.command_lines import DEFAULT
from distill_run.sweeps.grouping import Sweep
from distill_run.sweeps.points import STATUSES, Point, Replicate
from distill_run.sweeps.recommendation import Recommendation
from distill_run.sweeps.report.costs import network_costs
from distill_run.sweeps.report.sweep_report import (
    FORMAT,
    BaselineReport,
    RecommendedSetting,
    RunEntry,
    SettingReport,
    SweepReport,
    unit_of,
)
from distill_run.sweeps.report.warnings import warnings_of
from distill_run.sweeps.setting import FIGURES, Setting, estimate_figure
from distill_run.sweeps.values import setting_name
from distill_run.units import change, counted


def summarise_sweep(sweep: Sweep, folder: Path) -> SweepReport:
    """The report of a sweep. Directories are written relative to `folder`, where sweep.json will lie."""
    names = {id(point): os.path.relpath(point.run_dir, folder.resolve()) for point in sweep.points}
    reports = completed_reports(sweep)
    settings = _settings(sweep.settings, names)
    best = _recommended(sweep.recommendation, sweep.settings)
    runs = tuple(_run(point, sweep, names[id(point)]) for point in sweep.points)
    unit = unit_of(runs)
    return SweepReport(
        format=FORMAT,
        directories=tuple(str(directory.resolve()) for directory in sweep.directories),
        keys=sweep.keys,
        replicate_keys=sweep.replicate_keys,
        datasets=_distinct(report.dataset.name for report in reports),
        teachers=_distinct(report.teacher.architecture for report in reports),
        students=_distinct(report.student.architecture for report in reports),
        counts=_counts(sweep),
        settings=settings,
        runs=runs,
        recommendation=best,
        conclusion=conclude(settings, best, sweep, unit),
        warnings=warnings_of(sweep, reports, unit),
        baseline=_baseline(sweep.baseline),
        select_by=sweep.select_by,
        networks=network_costs(sweep),
    )


def completed_reports(sweep: Sweep) -> list[RunReport]:
    """The reports of the completed runs."""
    return [point.report for point in sweep.points if point.report is not None]


def _counts(sweep: Sweep) -> dict[str, int]:
    found = {status: sum(point.status == status for point in sweep.points) for status in STATUSES}
    return {**found, "not begun": sweep.num_not_begun}


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _settings(settings: Sequence[Setting], names: Mapping[int, str]) -> tuple[SettingReport, ...]:
    p_values = {id(setting): setting.p_value for setting in settings if setting.p_value is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return tuple(_setting(setting, corrected.get(id(setting)), names) for setting in settings)


def _setting(setting: Setting, corrected_p: float | None, names: Mapping[int, str]) -> SettingReport:
    reports = [replicate.report for replicate in setting.replicates.values()]
    return SettingReport(
        values=setting.values,
        runs=tuple(names[id(point)] for point in setting.points),
        replicates=len(setting.replicates),
        asked=setting.num_asked,
        **setting.figures,
        p_value=setting.p_value,
        corrected_p=corrected_p,
        is_control=bool(reports) and all(report.is_control for report in reports),
    )


def _baseline(replicates: Sequence[Replicate]) -> BaselineReport | None:
    val, test = (estimate_figure(f"baseline_{split}_accuracy", replicates) for split in ("val", "test"))
    return None if val is None or test is None else BaselineReport(val, test)


def _run(point: Point, sweep: Sweep, name: str) -> RunEntry:
    seed = point.value("seed") if point.report is None else point.report.seed
    figures = dict.fromkeys(FIGURES) if point.report is None else dataclasses.asdict(point.figures)
    return RunEntry(
        directory=name,
        status=point.status,
        error=point.error,
        values={key: point.value(key) for key in (*sweep.keys, *sweep.replicate_keys)},
        seed=None if seed == DEFAULT else seed,
        command=None if point.command is None else point.command.text,
        seeds=len(point.seeds),
        **figures,
    )


def _recommended(best: Recommendation | None, settings: Sequence[Setting]) -> RecommendedSetting | None:
    if best is None:
        return None
    figures = best.setting.figures
    val_accuracy, test_accuracy = figures["val_accuracy"], figures["test_accuracy"]
    assert val_accuracy is not None
    assert test_accuracy is not None
    indices = {id(setting): index for index, setting in enumerate(settings)}
    return RecommendedSetting(
        setting=indices[id(best.setting)],
        values=best.setting.values,
        val_accuracy=val_accuracy,
        test_accuracy=test_accuracy,
        difference=figures["difference"],
        alternatives=tuple(indices[id(setting)] for setting in best.alternatives),
        compared=best.num_compared,
        incomplete=tuple(indices[id(setting)] for setting in best.incomplete),
        command=best.command,
        ties=tuple(indices[id(setting)] for setting in best.ties),
    )


def conclude(settings: Sequence[SettingReport], best: RecommendedSetting | None, sweep: Sweep, unit: str) -> str:
    """Which setting is best on validation, what its student reaches on test, and how sure the difference is.

    `unit` is what replicates are called (see `unit_of`).
    """
    if sweep.num_datasets > 1:
        return f"Nothing is recommended: accuracies on {sweep.num_datasets} different datasets cannot be compared."
    if len(sweep.select_by) > 1:
        names = figure_names(sweep.select_by)
        return f"Nothing is recommended: the runs were selected by different figures ({names})."
    if best is None:
        return "No run is completed: there is nothing to recommend yet."
    count = best.test_accuracy.count
    mean = "" if count == 1 else f", the mean of {counted(count, unit)}"
    reached = f"{best.test_accuracy.mean:.2%} on test{mean}{_against_baseline(best.difference, unit)}."
    if not best.values:
        return f"The student reaches {reached}"
    name, num_complete = setting_name(best.values), sum(setting.replicates == count for setting in settings)
    if num_complete == 1:
        return f"Only {name} has {counted(count, unit)} completed: it reaches {reached}"
    others = len(best.peers)
    doubt = f" ({others} other{'' if others == 1 else 's'} may be as good)" if others else ""
    best_of = f"The best of {num_complete} settings on validation, by {figure_names(sweep.select_by)}"
    return f"{best_of}, is {name}{doubt}. It reaches {reached}"


def _against_baseline(difference: Estimate | None, unit: str) -> str:
    """How the student compares with the baseline, and how sure that is."""
    if difference is None:
        return ""
    points = round(100 * difference.mean, 2)
    amount = f", {abs(points):.2f} percentage points {'above' if points > 0 else 'below'} the student alone"
    if difference.low is None or difference.high is None:
        return f"{amount if points else ', the same as the student alone'} (one {unit}, so no interval)"
    interval = f"95% interval {change(difference.low)} to {change(difference.high)}"
    if contains(difference, 0.0):
        shown = f"{change(difference.mean)} percentage points, {interval}"
        return f": no difference to the student alone that {counted(difference.count, unit)} can show ({shown})"
    return f"{amount} ({interval})"
