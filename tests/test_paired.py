"""Figures over repeated runs, against values worked out by hand."""

import dataclasses
import math

import pytest

from distill_run.report.paired import Estimate, contains, estimate, gap_recovered, holm, p_value, paired_difference

T_2, T_1 = 4.3027, 12.7062  # Student's t at 97.5%, of 2 and of 1 degrees of freedom, from a printed table
IMAGE = 0.01


def test_the_interval_of_three_values_is_the_tables() -> None:
    found = estimate([0.90, 0.92, 0.97])
    sd = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)  # the mean is 0.93
    half = T_2 * sd / math.sqrt(3)
    assert dataclasses.astuple(found) == pytest.approx((3, 0.93, sd, 0.93 - half, 0.93 + half), abs=1e-5)


def test_one_value_has_no_interval_and_that_of_a_share_stays_a_share() -> None:
    assert estimate([0.5]) == Estimate(1, 0.5, None, None, None)
    assert not contains(Estimate(1, 0.5, None, None, None), 0.5)
    found = estimate([0.98, 1.0], (0.0, 1.0))
    assert found.low == pytest.approx(0.99 - T_1 * 0.01, abs=1e-5)
    assert found.high == 1.0


def test_a_difference_is_that_of_pairs() -> None:
    found = paired_difference([0.90, 0.80, 0.70], [0.88, 0.79, 0.64])  # 0.02, 0.01, 0.06
    sd = math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2)
    half = T_2 * sd / math.sqrt(3)
    assert dataclasses.astuple(found) == pytest.approx((3, 0.03, sd, 0.03 - half, 0.03 + half), abs=1e-5)


def test_the_gap_recovered_is_the_ratio_of_means() -> None:
    assert gap_recovered([0.75], [0.5], [1.0], IMAGE) == Estimate(1, 0.5, None, None, None)
    gains, gaps = (0.010, 0.020, 0.030), (0.10, 0.11, 0.12)
    student, teacher = [0.5 + gain for gain in gains], [0.5 + gap for gap in gaps]
    found = gap_recovered(student, [0.5] * 3, teacher, IMAGE)
    assert found is not None
    assert found.mean == pytest.approx(0.02 / 0.11)
    assert found.low is not None
    assert found.high is not None
    # At each end the t statistic of gain - r * gap is the table's. Standard deviation: 0.01 * |1 - r|, as both rise by
    # 0.01 a seed; so |0.02 - 0.11 r| = k |1 - r| with k = 0.01 T_2 / sqrt(3), which two linear equations solve.
    k = 0.01 * T_2 / math.sqrt(3)
    assert found.low == pytest.approx((0.02 - k) / (0.11 - k), abs=1e-5)
    assert found.high == pytest.approx((0.02 + k) / (0.11 + k), abs=1e-5)


@pytest.mark.parametrize(
    ("baseline", "teacher"),
    [
        ([0.900], [0.905]),  # less than one image
        ([0.90], [0.85]),
        ([0.90, 0.90, 0.90], [0.91, 0.97, 0.89]),  # the mean is 0.023, the interval contains 0
    ],
)
def test_no_gap_is_recovered_where_teacher_and_baseline_are_too_close(
    baseline: list[float], teacher: list[float]
) -> None:
    assert gap_recovered(baseline, baseline, teacher, IMAGE) is None


def test_a_gap_of_one_image_counts_though_its_digits_are_rounded() -> None:
    assert gap_recovered([0.3], [0.1 + 0.2], [0.31], IMAGE) is not None


def test_the_p_value_is_that_of_the_t_distribution() -> None:
    # With two pairs t has 1 degree of freedom: its distribution is Cauchy's, p = 1 - 2 * atan(t) / pi.
    assert p_value([0.01, 0.03]) == pytest.approx(1 - 2 * math.atan(2) / math.pi)  # 0.02 / (0.0141 / 1.414)
    assert p_value([-0.01, -0.03]) == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert (p_value([0.0, 0.0]), p_value([0.02, 0.02]), p_value([0.01, -0.01])) == (1.0, 0.0, 1.0)


def test_holm_multiplies_each_p_value_by_the_number_of_those_left() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not fall below the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
