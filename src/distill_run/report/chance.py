"""How much of a figure could be chance: an accuracy's interval, and a test of two networks on equal images.

Both speak of the choice of test images only. What another seed would change, they cannot know.
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
    """On how many images only one of two networks is right, and the p-value of the difference."""

    only_first: int
    only_second: int
    p_value: float


def compare(first_right: Tensor, second_right: Tensor) -> Paired:
    """The exact McNemar test of two networks' rightness (N,), bool, on the same images."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    return Paired(only_first, only_second, two_sided(only_first, only_second))


def two_sided(heads: int, tails: int) -> float:
    """How probable it is that a fair coin falls at least as unevenly as this, either way."""
    num_throws = heads + tails
    ways, total = 1, 0  # whole numbers: exact for any number of throws
    for i in range(min(heads, tails) + 1):
        total += ways
        ways = ways * (num_throws - i) // (i + 1)
    share: float = 2 * total / 2**num_throws
    return min(share, 1.0)


def verdict(paired: Paired, num_images: int) -> str:
    """One sentence: whether student (first) and baseline (second) differ by more than chance."""
    if paired.only_first == paired.only_second == 0:
        return f"Student and baseline are right on the very same ones of the {num_images:,} test images."
    outcome = "is more than chance alone would give"
    if paired.p_value >= SIGNIFICANCE:
        outcome = "is within what chance alone could give"
    return (
        f"The difference between student and baseline {outcome} on {num_images:,} test images: "
        f"{paired.only_first} are right only with the teacher's help, {paired.only_second} only without it "
        f"(exact McNemar test, p = {paired.p_value:.2g})."
    )
