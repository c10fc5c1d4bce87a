"""Learning-rate schedules: pure functions of the time in epochs, but for the plateau's memory.

A schedule says by which factor the optimizer's learning rate is multiplied. `epochs` is the length of the
training; the time runs from 0 to `epochs` and is fractional within one.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, final

from distill_run.rules import FRACTION, INSIDE_UNIT, NOT_NEGATIVE, POSITIVE, list_of, whole

ROUNDING = 1e-9  # epochs; a fraction such as 0.28 of 100 epochs comes out a little above 28


class Schedule(ABC):
    """The factor of the learning rate as a function of the time."""

    @abstractmethod
    def factor(self, time: float) -> float:
        """The factor at `time` (in epochs)."""

    def observe(self, goodness: float) -> None:  # noqa: B027 - only a schedule with a memory listens
        """Take note of how good the network is on validation at the end of an epoch: see engine.selection."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        assert not state


@final
class Constant(Schedule):
    """The learning rate as it is, after a linear warm-up."""

    def __init__(self, *, epochs: int, warmup_epochs: float) -> None:  # noqa: ARG002 - every schedule is told
        self.warmup_epochs = checked_warmup(warmup_epochs)

    def factor(self, time: float) -> float:
        """See Schedule."""
        return warmup(time, self.warmup_epochs)


@final
class Step(Schedule):
    """Multiplied by gamma after each milestone, a fraction of the epochs."""

    def __init__(self, *, epochs: int, milestones: Sequence[float], gamma: float, warmup_epochs: float) -> None:
        list_of(INSIDE_UNIT, "a list of fractions of the epochs, as in [0.5,0.75]").check("milestones", milestones)
        POSITIVE.check("gamma", gamma)
        self.milestones = sorted(fraction * epochs for fraction in milestones)
        self.gamma = gamma
        self.warmup_epochs = checked_warmup(warmup_epochs)

    def factor(self, time: float) -> float:
        """See Schedule."""
        return warmup(time, self.warmup_epochs) * self.gamma ** bisect_right(self.milestones, time + ROUNDING)


@final
class Cosine(Schedule):
    """Half a cosine from the learning rate to a fraction of it (Loshchilov and Hutter, 2017, equation 5)."""

    def __init__(self, *, epochs: int, final_fraction: float, warmup_epochs: float) -> None:
        FRACTION.check("final_fraction", final_fraction)
        self.epochs = epochs
        self.final_fraction = final_fraction
        self.warmup_epochs = min(checked_warmup(warmup_epochs), epochs)

    def factor(self, time: float) -> float:
        """See Schedule."""
        if time < self.warmup_epochs:
            return warmup(time, self.warmup_epochs)
        length = self.epochs - self.warmup_epochs
        return anneal(1.0, self.final_fraction, (time - self.warmup_epochs) / length if length else 1.0)


@final
class OneCycle(Schedule):
    """Up to the learning rate and down again along two half cosines (Smith and Topin, 2018)."""

    def __init__(self, *, epochs: int, rise_fraction: float, initial_fraction: float, final_fraction: float) -> None:
        INSIDE_UNIT.check("rise_fraction", rise_fraction)
        FRACTION.check("initial_fraction", initial_fraction)
        FRACTION.check("final_fraction", final_fraction)
        self.peak = rise_fraction * epochs
        self.epochs = epochs
        self.initial_fraction = initial_fraction
        self.final_fraction = final_fraction

    def factor(self, time: float) -> float:
        """See Schedule."""
        if time < self.peak:
            return anneal(self.initial_fraction, 1.0, time / self.peak)
        return anneal(1.0, self.final_fraction, (time - self.peak) / (self.epochs - self.peak))


@final
class Plateau(Schedule):
    """Multiplied by gamma each time that the network has not become better on validation for `patience` epochs."""

    def __init__(self, *, epochs: int, patience: int, gamma: float, warmup_epochs: float) -> None:  # noqa: ARG002
        whole(1).check("patience", patience)
        INSIDE_UNIT.check("gamma", gamma)
        self.patience = patience
        self.gamma = gamma
        self.warmup_epochs = checked_warmup(warmup_epochs)
        self.best = -math.inf
        self.waited = 0
        self.cuts = 0

    def factor(self, time: float) -> float:
        """See Schedule."""
        return warmup(time, self.warmup_epochs) * self.gamma**self.cuts

    def observe(self, goodness: float) -> None:
        """See Schedule."""
        if goodness > self.best:
            self.best, self.waited = goodness, 0
            return
        self.waited += 1
        if self.waited == self.patience:
            self.cuts, self.waited = self.cuts + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """See Schedule."""
        return {"best": self.best, "waited": self.waited, "cuts": self.cuts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Schedule."""
        self.best, self.waited, self.cuts = state["best"], state["waited"], state["cuts"]


def warmup(time: float, warmup_epochs: float) -> float:
    """A line from near 0 at the start to 1 at `warmup_epochs`; the first step's rate is a tenth of a percent."""
    return max(time / warmup_epochs, 1e-3) if time < warmup_epochs else 1.0


def checked_warmup(warmup_epochs: float) -> float:
    """`warmup_epochs`, refused where it is negative."""
    NOT_NEGATIVE.check("warmup_epochs", warmup_epochs)
    return warmup_epochs


def anneal(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
