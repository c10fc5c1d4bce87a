"""Temperature scaling: one number for a network that brings its confidence closer to its accuracy."""

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

SMALLEST, LARGEST = 0.05, 20.0


class Temperature(NamedTuple):
    """A fitted temperature; `at_bound` says that it is the smallest or the largest that is tried."""

    value: float
    at_bound: bool


def fit_temperature(logits: Tensor, targets: Tensor) -> Temperature:
    """The temperature, 0.05 to 20, at which logits (N, K) have the smallest negative log-likelihood of targets (N,).

    A network without a mistake on them has no best temperature: a smaller one is always better, and the bound is met.
    The likelihood has one extremum, for it is convex in 1 / temperature. Source: Guo et al., "On Calibration of Modern
    Neural Networks", 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here: it loads slowly

    logits = logits.double()

    def nll(logarithm: float) -> float:
        return F.cross_entropy(logits / math.exp(logarithm), targets).item()

    low, high = math.log(SMALLEST), math.log(LARGEST)
    inside = float(minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    best = min((low, high, inside), key=nll)
    return Temperature(math.exp(best), best != inside)
