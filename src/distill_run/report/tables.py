"""The tables behind a run's pictures, each of which is folded away below its picture."""

from dataclasses import dataclass

from distill_run.data.corruptions import SEVERITIES
from distill_run.engine.calibration import LARGEST, SMALLEST
from distill_run.report.figures import Calibration, Confidence
from distill_run.report.run_report import RunReport
from distill_run.units import percent


@dataclass(frozen=True)
class Table:
    """A table with what it shows in a few words, its headings, its rows of cells, and a caption."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str


def tables(report: RunReport) -> dict[str, Table]:
    """The tables by the names of their pictures."""
    found = {"reliability": calibration_table(report)} if report.calibration else {}
    return {**found, "robustness": robustness_table(report)} if report.robustness else found


def calibration_table(report: RunReport) -> Table:
    """Each network's figures on test as it is, and with the temperature that suits it best on validation."""
    return Table(
        "After temperature scaling",
        ["network", "temperature", "mean confidence", "ECE", "negative log-likelihood", "Brier score"],
        [[stage, *_calibration_cells(each)] for stage, each in report.calibration.items()],
        "Test figures of the network as it is, then with its logits divided by the temperature that gives the lowest "
        "negative log-likelihood on validation (Guo et al., 2017). The decisions stay the same. Above 1, the network "
        f"is too sure of itself.{_bound_note(report)}",
    )


def _calibration_cells(each: Calibration) -> list[str]:
    def pair(figure: str) -> str:
        return " → ".join(f"{getattr(moment, figure):.3f}" for moment in (each.before, each.after))

    return [f"{each.temperature:.3g}{' *' if each.at_bound else ''}", *map(pair, Confidence.__dataclass_fields__)]


def _bound_note(report: RunReport) -> str:
    """What a temperature at a bound means, where there is one."""
    stages = [stage for stage, each in report.calibration.items() if each.at_bound]
    if not stages:
        return ""
    return (
        f" * The validation images cannot tell the temperature of {' and '.join(stages)}: the best of those that are "
        f"tried, {SMALLEST:g} to {LARGEST:g}, is the last of them, as with a network that makes no mistake on "
        "validation. Do not use it."
    )


def robustness_table(report: RunReport) -> Table:
    """Each network's accuracy with each corruption and severity."""
    robustness = report.robustness
    assert robustness is not None
    rows = []
    for name, accuracies in robustness.corrupted.items():
        for stage, each in accuracies.items():
            rows.append([f"{name}, {stage}", *map(percent, (robustness.clean[stage], *each))])
    return Table(
        "Accuracy by corruption and severity",
        ["", "as they are", *(f"severity {severity}" for severity in SEVERITIES)],
        rows,
        f"Of {robustness.images:,} test images, evenly spread over the split.",
    )
