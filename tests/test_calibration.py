"""Temperature scaling against a known temperature, against a grid, and where there is none; and what reports say."""

import dataclasses

import numpy as np
import pytest
import torch

from distill_run.engine.calibration import LARGEST, SMALLEST, fit_temperature
from distill_run.report.measures import agreement_by_teacher, calibrations
from distill_run.report.run_report import RunReport
from distill_run.report.summary import Findings
from distill_run.report.tables import calibration_table
from helpers import numpy_cross_entropy, some_logits
from test_report_pages import made_up_findings


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return made_up_findings(tmp_path_factory.mktemp("run"))


def test_the_temperature_that_made_the_targets_is_found() -> None:
    """Targets drawn from softmax(logits / 2.5): with enough of them, 2.5 is the best temperature."""
    logits = torch.from_numpy(some_logits(0, 20_000, 5))
    targets = torch.multinomial((logits / 2.5).softmax(1), 1, generator=torch.Generator().manual_seed(0)).flatten()
    value, at_bound = fit_temperature(logits, targets)
    assert value == pytest.approx(2.5, rel=0.03)
    assert not at_bound


def test_no_other_temperature_is_better() -> None:
    logits, targets = some_logits(3, 200, 4), np.random.default_rng(3).integers(0, 4, 200)
    logits[np.arange(200), targets] += 2
    value, at_bound = fit_temperature(torch.from_numpy(logits), torch.from_numpy(targets))
    grid = np.geomspace(SMALLEST, LARGEST, 2000)
    best = grid[np.argmin([numpy_cross_entropy(logits / temperature, targets) for temperature in grid])]
    assert value == pytest.approx(best, rel=4e-3)  # the step of the grid
    assert not at_bound


@pytest.mark.parametrize(("factor", "bound"), [(1.0, SMALLEST), (1e4, SMALLEST), (-1.0, LARGEST)])
def test_a_network_without_a_mistake_or_without_a_hit_meets_a_bound(factor: float, bound: float) -> None:
    logits = factor * torch.eye(4)
    assert fit_temperature(logits, torch.arange(4)) == pytest.approx((bound, True))


def test_calibration_of_a_run_is_measured_on_test_and_fitted_on_validation(findings: Findings) -> None:
    targets = findings.feed.test.targets.numpy()
    for stage, each in calibrations(findings.networks, findings.feed).items():
        trained = findings.networks[stage]
        images = torch.stack([findings.feed.val.image(index) for index in range(10)]) / 255
        with torch.no_grad():
            expected = fit_temperature(trained.network(images), findings.feed.val.targets)
        assert each.temperature == pytest.approx(expected.value, rel=1e-4)
        logits = trained.selected.test_logits.double().numpy()
        assert each.before.nll == pytest.approx(numpy_cross_entropy(logits, targets))
        assert each.after.nll == pytest.approx(numpy_cross_entropy(logits / each.temperature, targets))
        confidence = torch.from_numpy(logits / each.temperature).softmax(1).max(1).values.mean().item()
        assert each.after.mean == pytest.approx(confidence)


def test_a_temperature_at_a_bound_is_said_not_to_be_used(tiny_report: RunReport) -> None:
    assert "Do not use it" not in calibration_table(tiny_report).caption
    calibration = {**tiny_report.calibration}
    calibration["teacher"] = dataclasses.replace(calibration["teacher"], temperature=SMALLEST, at_bound=True)
    table = calibration_table(dataclasses.replace(tiny_report, calibration=calibration))
    assert table.rows[0][:2] == ["teacher", "0.05 *"]
    assert "cannot tell the temperature of teacher: the best of those that are tried, 0.05 to 20," in table.caption


def test_agreement_apart_for_where_the_teacher_is_right(findings: Findings) -> None:
    targets = (findings.feed.test.targets + (torch.arange(90) % 5 == 0).long()) % 4  # the teacher makes mistakes, too
    decided = {stage: each.selected.test_logits.argmax(1) for stage, each in findings.networks.items()}
    found = agreement_by_teacher(findings.networks, targets)
    parts = (found.teacher_right, True), (found.teacher_wrong, False)
    assert sum(part.images for part, _ in parts) == 90
    for part, is_right in parts:
        where = [index for index in range(90) if bool(decided["teacher"][index] == targets[index]) == is_right]
        assert part.images == len(where)
        for stage in ("baseline", "student"):
            same = sum(bool(decided[stage][index] == decided["teacher"][index]) for index in where)
            assert part.shares[stage] == pytest.approx(same / len(where))
    assert found.teacher_wrong.images > 0
    assert agreement_by_teacher(findings.networks, decided["teacher"]).teacher_wrong.shares == {}
