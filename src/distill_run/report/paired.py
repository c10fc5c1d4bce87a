"""Figures over repeated runs: means, differences of pairs, the gap recovered, and their 95% intervals.

Runs are paired where they share a seed: the i-th student has the i-th baseline and the i-th teacher. The intervals
cover what another seed would change, not what another choice of test images would change (see chance).
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

CONFIDENCE = 0.95
ANY_NUMBER = (-math.inf, math.inf)
SHARE = (0.0, 1.0)
ROUNDING = 1e-12  # differences of accuracies are equal to so many digits


@dataclass(frozen=True)
class Estimate:
    """Mean and standard deviation of `count` values, and the 95% interval of the mean; one value has only a mean."""

    count: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def estimate(values: Sequence[float], limits: tuple[float, float] = ANY_NUMBER) -> Estimate:
    """Mean, standard deviation (n - 1) and Student's t interval, cut at the limits of a value; needs a value."""
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Estimate(count, mean, None, None, None)
    sd = _deviation(values)
    half = _t_quantile(count) * sd / math.sqrt(count)
    return Estimate(count, mean, sd, max(mean - half, limits[0]), min(mean + half, limits[1]))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The estimate of first[i] - second[i]; needs a pair."""
    return estimate(_differences(first, second))


def contains(interval: Estimate, value: float) -> bool:
    """Whether a value lies in the interval; False where there is no interval."""
    if interval.low is None or interval.high is None:
        return False
    return interval.low <= value <= interval.high


def gap_recovered(
    student: Sequence[float], baseline: Sequence[float], teacher: Sequence[float], one_image: float
) -> Estimate | None:
    """The mean of student - baseline divided by the mean of teacher - baseline, with Fieller's 95% interval.

    The arguments are test accuracies of paired runs; `one_image` is what one test image adds to an accuracy. None where
    the teacher is not above the baseline by an image or more, or where the interval of that difference contains 0: then
    the ratio has no bounds. Source: Fieller, "Some problems in interval estimation", 1954.
    """
    gains, gaps = _differences(student, baseline), _differences(teacher, baseline)
    gain, gap = estimate(gains), estimate(gaps)
    if gap.mean < one_image - ROUNDING or contains(gap, 0.0):
        return None
    ratio, count = gain.mean / gap.mean, gap.count
    if gain.sd is None or gap.sd is None:
        return Estimate(count, ratio, None, None, None)
    # The interval holds each r for which the t interval of the mean of gain - r * gap contains 0: it solves
    # a * r^2 - 2 * b * r + c <= 0.
    weight = _t_quantile(count) ** 2 / count
    a = gap.mean**2 - weight * gap.sd**2
    b = gain.mean * gap.mean - weight * statistics.covariance(gains, gaps)
    c = gain.mean**2 - weight * gain.sd**2
    root = math.sqrt(max(b * b - a * c, 0.0))
    return Estimate(count, ratio, None, (b - root) / a, (b + root) / a)


def p_value(differences: Sequence[float]) -> float:
    """The two-sided p-value of the paired t-test that the mean of these differences, two or more, is 0."""
    from scipy.special import stdtr  # here: it loads slowly

    count, mean, sd = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    if sd <= ROUNDING:
        return 1.0 if abs(mean) <= ROUNDING else 0.0
    return float(2 * stdtr(count - 1, -abs(mean) / sd * math.sqrt(count)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the same order: below 0.05 with at most a 5% risk of any false one.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        corrected[index] = largest
    return corrected


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(first, second, strict=True)]


def _deviation(values: Sequence[float]) -> float:
    """The standard deviation (n - 1), from exact sums; `statistics` takes a second for 10,000 images, alike or not."""
    counts, size = Counter(values), len(values)
    exact = {value: Fraction(value) for value in counts}
    mean = sum(count * exact[value] for value, count in counts.items()) / size
    squares = sum(count * (exact[value] - mean) ** 2 for value, count in counts.items())
    return math.sqrt(squares / (size - 1))


def _t_quantile(count: int) -> float:
    from scipy.special import stdtrit  # here: it loads slowly

    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
