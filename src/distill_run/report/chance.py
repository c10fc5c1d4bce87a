"""How much of a figure could be chance: the interval of an accuracy, and a test that compares two networks.

Both tell only what another choice of test images would change. They cannot tell what another seed would change.
"""

import math
from dataclasses import dataclass

from torch import Tensor

Z_95 = 1.959964  # the normal distribution's 97.5% quantile
SIGNIFICANCE = 0.05


def wilson_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """The approximate 95% interval of an accuracy, as fractions.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, weight = num_right / num_images, Z_95**2 / num_images
    centre = (share + weight / 2) / (1 + weight)
    half = Z_95 * math.sqrt(share * (1 - share) / num_images + weight / (4 * num_images)) / (1 + weight)
    return max(centre - half, 0.0), min(centre + half, 1.0)


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


def difference_interval(paired: Paired, num_images: int) -> tuple[float, float]:
    """The 95% interval of the first network's accuracy minus the second's, as fractions.

    Given the number of images on which just one of them is right, the share of the first is binomial; its interval is
    Clopper and Pearson's. So 0 lies inside exactly where the p-value is above 0.05.
    Source: Clopper and Pearson, "The use of confidence or fiducial limits", 1934.
    """
    from scipy.special import betaincinv  # here: it loads slowly

    first, second = paired.only_first, paired.only_second
    low = betaincinv(first, second + 1, SIGNIFICANCE / 2) if first else 0.0
    high = betaincinv(first + 1, second, 1 - SIGNIFICANCE / 2) if second else 1.0
    share = (first + second) / num_images
    return float(2 * low - 1) * share, float(2 * high - 1) * share


def two_sided(heads: int, tails: int) -> float:
    """The probability that a fair coin falls at least as unevenly as this, in either direction."""
    num_throws = heads + tails
    ways, total = 1, 0  # whole numbers are exact for any number of throws
    for i in range(min(heads, tails) + 1):
        total += ways
        ways = ways * (num_throws - i) // (i + 1)
    share: float = 2 * total / 2**num_throws
    return min(share, 1.0)


def verdict(paired: Paired, num_images: int) -> str:
    """One sentence that says whether student (first) and baseline (second) differ by more than chance."""
    if paired.only_first == paired.only_second == 0:
        return f"Student and baseline are right on exactly the same of the {num_images:,} test images."
    outcome = "is larger than chance would explain"
    if paired.p_value >= SIGNIFICANCE:
        outcome = "could be chance"
    return (
        f"The difference between student and baseline {outcome}: of {num_images:,} test images, only the student is "
        f"right on {paired.only_first}, only the baseline on {paired.only_second} "
        f"(exact McNemar test, p = {paired.p_value:.2g})."
    )
