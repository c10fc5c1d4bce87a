"""The sentence that people remember: it says no more than is known."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_run.report.chance import difference_interval
from distill_run.report.conclusion import conclude
from distill_run.report.figures import Difference
from distill_run.report.run_report import RunReport


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
    assert made(same, Difference(0.0, -0.004, 0.004, "images", 450)) == (
        "No difference that 450 test images can show: 90.00% alone, 90.00% distilled "
        "(+0.00 percentage points, 95% interval -0.40 to 0.40); the teacher reaches 99.00%."
    )


def test_without_a_teacher_nothing_is_compared(tiny_report: RunReport) -> None:
    plain = with_accuracies(tiny_report, 0.9, 0.9)
    assert made(plain, None, mode={"name": "none"}, guided_by="nothing") == (
        "Without a teacher (mode=none) the student reaches 90.00%; the teacher reaches 99.00%."
    )


def test_a_control_is_not_distillation(tiny_report: RunReport) -> None:
    gained = with_accuracies(tiny_report, 0.9, 0.914)
    control = {"guided_by": "nothing", "mode": {"name": "label_smoothing"}, "gap_recovered": None}
    assert made(gained, Difference(0.014, 0.003, 0.025, "images", 450), **control) == (
        "The control label_smoothing gained 1.40 percentage points of test accuracy (95% interval 0.30 to 2.50, "
        "over 450 test images, one seed): from 90.00% alone to 91.40% with it; the teacher reaches 99.00%."
    )


def test_where_a_training_went_wrong_there_is_no_verdict(tiny_report: RunReport) -> None:
    failures = ("the student is at chance", "the teacher is worse than the student alone")
    assert made(tiny_report, Difference(-0.5, -0.6, -0.4, "images", 450), failures=failures) == (
        "No verdict on distillation: the student is at chance; the teacher is worse than the student alone."
    )


def rights(both: int, only_first: int, only_second: int, none: int) -> tuple[Tensor, Tensor]:
    first = torch.tensor([1] * both + [1] * only_first + [0] * only_second + [0] * none, dtype=torch.bool)
    second = torch.tensor([1] * both + [0] * only_first + [1] * only_second + [0] * none, dtype=torch.bool)
    return first, second


def test_the_interval_is_the_published_one() -> None:
    """Newcombe's own example, 36, 12, 2 and 0 of 50: 0.2, from 0.0569 to 0.3404 (1998, table II, method 10)."""
    assert difference_interval(*rights(36, 12, 2, 0)) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_interval_turns_round_with_the_networks() -> None:
    first, second = rights(400, 20, 8, 22)
    low, high = difference_interval(first, second)
    assert low < 12 / 450 < high
    assert difference_interval(second, first) == pytest.approx((-high, -low))


def test_two_networks_that_decide_alike_may_differ_on_other_images() -> None:
    low, high = difference_interval(*rights(400, 0, 0, 50))
    assert -0.02 < low < 0 < high < 0.02
    low, high = difference_interval(*rights(50, 0, 0, 0))
    assert low == pytest.approx(-high)
    assert 0 < high < 0.1
