"""How much of a figure could be chance: the interval of an accuracy, and a test that compares two networks.

Both tell only what another choice of test images would change. They cannot tell what another seed would change.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

Z_95 = 1.959964  # the normal distribution's 97.5% quantile
SIGNIFICANCE = 0.05


def wilson_interval(num_right: int, num_images: int, num_intervals: int = 1) -> tuple[float, float]:
    """The approximate 95% interval of an accuracy, as fractions; of `num_intervals`, all hold with that probability.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    z = Z_95 if num_intervals == 1 else NormalDist().inv_cdf(1 - SIGNIFICANCE / num_intervals / 2)
    share, weight = num_right / num_images, z**2 / num_images
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / num_images + weight / (4 * num_images)) / (1 + weight)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def accuracy_interval(accuracy: float, num_images: int) -> tuple[float, float]:
    """The Wilson interval of an accuracy that was measured on `num_images`."""
    return wilson_interval(round(accuracy * num_images), num_images)


@dataclass(frozen=True)
class Paired:
    """The numbers of images on which only the first or only the second network is right, and the test's p-value."""

    only_first: int
    only_second: int
    p_value: float


def compare(first_right: Tensor, second_right: Tensor) -> Paired:
    """The exact McNemar test of two networks on the same images; each argument says where one is right: (N,), bool."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    return Paired(only_first, only_second, two_sided(only_first, only_second))


def difference_interval(first_right: Tensor, second_right: Tensor) -> tuple[float, float]:
    """The approximate 95% interval of the first network's accuracy minus the second's on the same images, as fractions.

    Each argument says where a network is right: (N,), bool. The two Wilson intervals are joined, and the correlation of
    the networks is taken into account. Source: Newcombe, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", 1998, method 10.
    """
    count, first, second = len(first_right), int(first_right.sum()), int(second_right.sum())
    both = int((first_right & second_right).sum())
    share, other = first / count, second / count
    low, high = wilson_interval(first, count)
    other_low, other_high = wilson_interval(second, count)
    correlation = _correlation(both, first, second, count)
    below = _joined(share - low, other_high - other, correlation)
    above = _joined(high - share, other - other_low, correlation)
    return share - other - below, share - other + above


def _correlation(both: int, first: int, second: int, count: int) -> float:
    """The phi coefficient of two networks that are right on `first` and `second` of `count` images, corrected."""
    product = first * (count - first) * second * (count - second)
    if product == 0:
        return 0.0
    excess = both * (count - first - second + both) - (first - both) * (second - both)
    return (max(excess - count / 2, 0) if excess > 0 else excess) / math.sqrt(product)


def _joined(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(first**2 - 2 * correlation * first * second + second**2, 0.0))


def two_sided(heads: int, tails: int) -> float:
    """The probability that a fair coin falls at least as unevenly as this, in either direction."""
    num_throws = heads + tails
    ways, total = 1, 0  # whole numbers are exact for any number of throws
    for i in range(min(heads, tails) + 1):
        total += ways
        ways = ways * (num_throws - i) // (i + 1)
    share: float = 2 * total / 2**num_throws
    return min(share, 1.0)


def counts(paired: Paired, num_images: int) -> str:
    """One sentence: on how many images only the student (first), and only the baseline (second), is right."""
    if paired.only_first == paired.only_second == 0:
        return f"Student and baseline are right on exactly the same of the {num_images:,} test images."
    return (
        f"Of {num_images:,} test images, only the student is right on {paired.only_first}, only the baseline on "
        f"{paired.only_second} (exact McNemar test, p = {paired.p_value:.2g})."
    )
