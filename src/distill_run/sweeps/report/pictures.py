"""The figures of a sweep with their captions. Importing this module imports matplotlib."""

from collections.abc import Sequence

from distill_run.report.drawing import Picture, render, spread
from distill_run.sweeps.report.answers import listed
from distill_run.sweeps.report.coordinates import parallel_coordinates
from distill_run.sweeps.report.curves import key_curve, seed_strip
from distill_run.sweeps.report.heat_map import heat_maps, is_grid, side_keys
from distill_run.sweeps.report.sweep_report import RunEntry, SettingReport, SweepReport
from distill_run.sweeps.report.trade_off import LATENCY, axes_of, has_trade_off, network_name, pareto_front, trade_off
from distill_run.sweeps.values import setting_name
from distill_run.units import counted, three_digits

NAME = "sweep"
MAX_KEYS = 8  # of parallel coordinates: the names of more axes overlap


def draw(report: SweepReport) -> list[Picture]:
    """The figures for which there are data."""
    pictures = [draw_sweep(report), draw_trade_off(report)]
    return [picture for picture in pictures if picture is not None]


def draw_sweep(report: SweepReport) -> Picture | None:
    """The kind of figure that suits the number of keys; None for a single result, or for too many keys."""
    completed = report.completed_settings
    if not report.keys:
        has_several = completed and completed[0].replicates > 1 and report.counts["completed"] > 1
        return _seeds(report) if has_several else None
    if len(completed) < 2:
        return None
    if len(report.keys) == 1:
        return _curve(report)
    if len(report.keys) == 2 and is_grid(report):
        return _heat_maps(report)
    return _coordinates(report) if len(report.keys) <= MAX_KEYS else None


def _recommended(report: SweepReport) -> str:
    best = report.recommendation
    if best is None:  # runs that cannot be ranked together, or that have no verdict
        return "No setting is recommended. The table below has the figures of every setting."
    return (
        f"Recommended: {setting_name(best.values)}, with {best.val_accuracy.mean:.2%} on validation and "
        f"{best.test_accuracy.mean:.2%} on test. The table below has the figures of every setting."
    )


def _marked(report: SweepReport, mark: str) -> str:
    """A sentence on the mark of the recommended setting; empty where none is recommended: then there is no mark."""
    if report.recommendation is None:
        return ""
    return f" The {mark} is the setting that is best on validation; test accuracy took no part in the choice."


def _seeds(report: SweepReport) -> Picture:
    completed = [run for run in report.runs if run.status == "completed"]
    return Picture(
        NAME,
        "Run by run",
        f"Validation and test accuracy of {counted(report.counts['completed'], 'run')} that differ only in "
        f"{listed(report.replicate_keys)}. The table below has their figures.",
        f"Each mark is the selected epoch of one run{_repeated(report)}. A line joins the student and the baseline "
        f"of the same {'seed' if report.unit == 'run' else 'run'}. Dashed lines are the means.{_drawn(completed)}",
        render(seed_strip(report)),
    )


def _repeated(report: SweepReport) -> str:
    return ", the mean over its seeds" if report.unit == "seed" else ""


def _drawn(items: Sequence[SettingReport] | Sequence[RunEntry]) -> str:
    """A sentence that says how many settings or runs are drawn; empty where all are."""
    drawn = spread(items)
    return f" The picture shows {len(drawn):,} of {len(items):,}, in equal steps." if len(drawn) < len(items) else ""


def _curve(report: SweepReport) -> Picture:
    [key] = report.keys
    return Picture(
        NAME,
        f"Accuracy by {key}",
        f"Validation and test accuracy by {key}. {_recommended(report)}",
        f"The band is the 95% interval of the mean over the {report.unit}s of a setting; it needs at least two."
        f"{_marked(report, 'ring')}{_drawn(report.completed_settings)}",
        render(key_curve(report, key)),
    )


def _heat_maps(report: SweepReport) -> Picture:
    rows, columns = side_keys(report)
    return Picture(
        NAME,
        f"Accuracy by {rows} and {columns}",
        f"Heat maps of validation and test accuracy: rows are {rows}, columns are {columns}. {_recommended(report)}",
        f"Each cell is a setting: the mean over its {report.unit}s and, for several, their standard deviation in "
        "percentage points. Darker is better; each map has its own scale. Hatched cells have no completed run."
        f"{_marked(report, 'frame')}",
        render(heat_maps(report)),
    )


def _coordinates(report: SweepReport) -> Picture:
    return Picture(
        NAME,
        "All settings at a glance",
        f"Parallel coordinates of {', '.join(report.keys)} and validation accuracy. {_recommended(report)}",
        "Each line is a setting: it crosses each axis at its value and ends at its validation accuracy, the mean over "
        f"its {report.unit}s. Darker is better."
        f"{_marked(report, 'black line')}{_drawn(report.completed_settings)}",
        render(parallel_coordinates(report)),
    )


def draw_trade_off(report: SweepReport) -> Picture | None:
    """Accuracy against size and latency; None where all students cost the same."""
    if not has_trade_off(report):
        return None
    axes = axes_of(report)
    fronts = []
    for axis in axes:
        members = [
            f"{network_name(network, report)} ({network.stage}, {three_digits(axis.of(network))} {axis.unit}, "
            f"{network.val_accuracy:.2%})"
            for network in pareto_front(report.networks, axis)
        ]
        fronts.append(f"On the Pareto front by {axis.name}: {', '.join(members)}.")
    measured = (
        f"The latency is the median that each run measured, the mean over the {report.unit}s that did."
        if LATENCY in axes
        else "Not every run measured the latency, so multiply-adds stand for it: measure_speed=true measures it in a "
        "sweep, for which no two runs should share the machine; distill-measure does it for finished runs."
    )
    return Picture(
        "trade_off",
        "Accuracy against size and speed",
        f"Validation accuracy by {axes[0].name} and by {axes[1].name}. {' '.join(fronts)}",
        f"Each student is a setting, the mean over its {report.unit}s; each teacher and each baseline is the mean of "
        "those of one architecture. The networks on the Pareto front have their names: they are better than all that "
        f"cost as little or less. {measured} Test accuracy takes no part.",
        render(trade_off(report)),
    )
