"""The sentence that people remember: it says no more than is known."""

import dataclasses
from typing import Any

import pytest

from distill_run.report.chance import Paired, difference_interval, two_sided
from distill_run.report.conclusion import conclude
from distill_run.report.run_report import Difference, RunReport


def made(report: RunReport, difference: Difference | None, **changes: Any) -> str:
    return conclude(dataclasses.replace(report, difference=difference, repeats=(), **changes))


def with_accuracies(report: RunReport, alone: float, student: float) -> RunReport:
    def at(network: Any, accuracy: float) -> Any:
        test = dataclasses.replace(network.selected.test, accuracy=accuracy)
        return dataclasses.replace(network, selected=dataclasses.replace(network.selected, test=test))

    pair = {"baseline": at(report.baseline, alone), "student": at(report.student, student)}
    return dataclasses.replace(report, teacher=at(report.teacher, 0.99), failures=(), **pair)


def test_the_headline_carries_the_doubt(tiny_report: RunReport) -> None:
    gained, lost = with_accuracies(tiny_report, 0.9, 0.914), with_accuracies(tiny_report, 0.914, 0.9)
    seeds = Difference(0.014, 0.003, 0.025, "seeds", 5)
    assert made(gained, seeds, gap_recovered=0.155) == (
        "Distillation gained 1.40 percentage points of test accuracy (95% interval 0.30 to 2.50, over 5 seeds), 16% of "
        "the gap to the teacher: from 90.00% alone to 91.40% distilled; the teacher reaches 99.00%."
    )
    assert made(lost, seeds.reversed, gap_recovered=None) == (
        "Distillation cost 1.40 percentage points of test accuracy (95% interval 0.30 to 2.50, over 5 seeds): "
        "from 91.40% alone to 90.00% distilled; the teacher reaches 99.00%."
    )
    doubtful = Difference(0.014, -0.001, 0.029, "images", 450)
    assert made(gained, doubtful) == (
        "No difference that 450 test images can show: 90.00% alone, 91.40% distilled "
        "(+1.40 percentage points, 95% interval -0.10 to 2.90); the teacher reaches 99.00%."
    )
    assert made(gained, dataclasses.replace(doubtful, over="seeds", count=5)).startswith(
        "No difference that 5 seeds can show: "
    )
    same = with_accuracies(tiny_report, 0.9, 0.9)
    assert made(same, Difference(0.0, 0.0, 0.0, "images", 450)) == (
        "Distillation changed nothing: 90.00% with it and without it; the teacher reaches 99.00%."
    )


def test_a_control_is_not_distillation(tiny_report: RunReport) -> None:
    gained = with_accuracies(tiny_report, 0.9, 0.914)
    control = {"guided_by": "nothing", "mode": {"name": "label_smoothing"}, "gap_recovered": None}
    assert made(gained, Difference(0.014, 0.003, 0.025, "images", 450), **control) == (
        "The control label_smoothing gained 1.40 percentage points of test accuracy (95% interval 0.30 to 2.50): "
        "from 90.00% alone to 91.40% with it; the teacher reaches 99.00%."
    )


def test_where_a_training_went_wrong_there_is_no_verdict(tiny_report: RunReport) -> None:
    failures = ("the student is at chance", "the teacher is worse than the student alone")
    assert made(tiny_report, Difference(-0.5, -0.6, -0.4, "images", 450), failures=failures) == (
        "No verdict on distillation: the student is at chance; the teacher is worse than the student alone."
    )


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 0), (7, 3), (30, 12), (12, 30), (1, 1), (0, 6)])
def test_the_interval_includes_0_where_the_exact_test_says_chance(first: int, second: int) -> None:
    paired = Paired(first, second, two_sided(first, second))
    low, high = difference_interval(paired, 450)
    assert low <= (first - second) / 450 <= high
    assert (low <= 0 <= high) == (paired.p_value > 0.05)


def test_the_interval_of_six_images_against_none() -> None:
    """The share of the first lies between 0.025^(1/6) = 0.540742 and 1."""
    low, high = difference_interval(Paired(6, 0, two_sided(6, 0)), 100)
    assert (low, high) == pytest.approx(((2 * 0.540742 - 1) * 0.06, 0.06), abs=1e-7)


def test_two_networks_that_decide_alike_do_not_differ() -> None:
    assert difference_interval(Paired(0, 0, 1.0), 450) == (0.0, 0.0)
