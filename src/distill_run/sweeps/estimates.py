"""Mean, standard deviation and confidence interval of a figure over repeated runs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95
ANY_NUMBER = (-math.inf, math.inf)
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """Mean and standard deviation of `count` values, and the 95% interval of the mean; one value has only a mean."""

    count: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def estimate(values: Sequence[float], limits: tuple[float, float] = ANY_NUMBER) -> Estimate | None:
    """Mean, standard deviation (n - 1) and Student's t interval, cut at the limits of a value; None without values."""
    if not values:
        return None
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Estimate(count, mean, None, None, None)
    sd = statistics.stdev(values)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(count)
    return Estimate(count, mean, sd, max(mean - half, limits[0]), min(mean + half, limits[1]))


def contains(interval: Estimate, value: float) -> bool:
    """Whether a value lies in the interval; False where there is no interval."""
    if interval.low is None or interval.high is None:
        return False
    return interval.low <= value <= interval.high
