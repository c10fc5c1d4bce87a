"""The spaces of values that a search draws from: one of several values, or a number of an interval."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SIGNIFICANT_DIGITS = 4  # of a number that is drawn from an interval: more would only be hard to read
ALL_DIGITS = 17  # with so many digits, every number is exact
GOLDEN = 0.618  # a fraction of an interval at which there is hardly ever a whole number, a half or a quarter


@dataclass(frozen=True)
class Choices:
    """One of several values, written as one types them."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before the first trial."""
        return self.values

    @property
    def usual(self) -> str:
        """A value like most of those that will be tried."""
        return self.values[0]

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna draws from it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def shown(self, value: Any) -> str:
        """A value as one types it."""
        return str(value)


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included, on a linear or a logarithmic scale.

    With a `step` they are whole numbers, `step` apart; without one, any numbers.
    """

    low: float
    high: float
    step: int | None
    is_log: bool

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before the first trial."""
        return (self.shown(self.low), self.shown(self.high))

    @property
    def usual(self) -> str:
        """A value like most of those that will be tried: one with a fraction, even if both ends are whole."""
        return self.shown(self.low if self.step is not None else self.low + GOLDEN * (self.high - self.low))

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna draws from it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.step is not None:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def shown(self, value: Any) -> str:
        """A value as one types it: to four digits, or to more where the rounded value would leave the interval."""
        if self.step is not None:
            return str(int(value))
        rounded = (f"{value:.{digits}g}" for digits in range(SIGNIFICANT_DIGITS, ALL_DIGITS + 1))
        return next(text for text in rounded if self.low <= float(text) <= self.high)


Space = Choices | Interval
