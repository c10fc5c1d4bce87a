"""The title, the labels and the key figures of a sweep's pages."""

from collections.abc import Callable, Sequence

from distill_run.report.paired import Estimate
from distill_run.report.typesetting import Tile
from distill_run.sweeps.report.answers import listed
from distill_run.sweeps.report.sweep_report import SettingReport, SweepReport
from distill_run.units import NONE, change, counted, percent, whole_percent

MAX_NAMES = 3


def title(report: SweepReport) -> str:
    """What was varied, in one line."""
    if report.keys:
        return f"Sweep over {listed(report.keys)}"
    if report.replicate_keys:
        return f"One setting, repeated over {listed(report.replicate_keys)}"
    return counted(len(report.runs), "run") if report.runs else "No runs"


def labels(report: SweepReport) -> list[str]:
    """How many settings and runs there are, and which dataset and networks they use."""
    found = [f"{len(report.settings)} settings"] if len(report.settings) > 1 else []
    found += [f"{count} {status}" for status, count in report.counts.items() if count]
    used = {"dataset": report.datasets, "teacher": report.teachers, "student": report.students}
    return [*found, *(f"{kind} {_few(names)}" for kind, names in used.items() if names)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} different ones"


def tiles(report: SweepReport) -> list[Tile]:
    """The key figures of the recommended setting; none where nothing is recommended."""
    if report.recommendation is None:
        return []
    best = report.settings[report.recommendation.setting]
    validation, test = report.recommendation.val_accuracy, report.recommendation.test_accuracy
    return [
        Tile("Validation accuracy", percent(validation.mean), _interval(validation, percent, report.unit)),
        Tile("Test accuracy", percent(test.mean), _interval(test, percent, report.unit)),
        *_baseline_tiles(best, report.unit),
        Tile(
            "Agreement with the teacher",
            percent(best.mean("agreement")),
            "test images with the same class from both",
        ),
    ]


def _baseline_tiles(best: SettingReport, unit: str) -> list[Tile]:
    """What distillation changed, and the gap that it closed; without a baseline, none."""
    found = []
    if best.difference is not None:
        alone = percent(best.mean("baseline_test_accuracy"))
        note = f"percentage points, from {alone} alone; {_interval(best.difference, change, unit)}"
        source = "the control" if best.is_control else "distillation"
        found.append(Tile(f"Change by {source}", change(best.difference.mean), note))
        found.append(_gap_tile(best, unit))
    return found


def _gap_tile(best: SettingReport, unit: str) -> Tile:
    """The ratio of the mean gain to the mean gap; without one, the reason."""
    gap = best.gap_recovered
    if gap is None:
        is_below = best.mean("teacher_test_accuracy") <= best.mean("baseline_test_accuracy")
        reason = "the teacher is not above the baseline" if is_below else "teacher and baseline are too close"
        return Tile("Gap recovered", NONE, reason)
    note = f"of the way from baseline to teacher; {_interval(gap, whole_percent, unit)}"
    return Tile("Gap recovered", whole_percent(gap.mean), note)


def _interval(found: Estimate, show: Callable[[float], str], unit: str) -> str:
    """The number of replicates and the interval of an estimate, in words."""
    if found.low is None or found.high is None:
        return f"one {unit}; 95% interval {NONE}"
    return f"{counted(found.count, unit)}; 95% interval {show(found.low)} to {show(found.high)}"
