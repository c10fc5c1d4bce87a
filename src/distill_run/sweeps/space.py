"""Spaces of values in Hydra's words, as Optuna wants them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, ValueType

from distill_run.config.overrides import text_of
from distill_run.errors import user_error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SIGNIFICANT_DIGITS = 4  # of a number that is drawn from an interval: enough to tell, short enough to read
ALL_DIGITS = 17  # that a number has
GOLDEN = 0.618  # of the way through an interval lies a number that is not whole, nor half, nor a quarter


@dataclass(frozen=True)
class Choices:
    """One of several values, as they are typed."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before the first trial."""
        return self.values

    @property
    def usual(self) -> str:
        """A value like most that will be tried."""
        return self.values[0]

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna draws from it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def shown(self, value: Any) -> str:
        """A value as it is typed."""
        return str(value)


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included: whole ones, each `step`-th, or any; on a linear or a log scale."""

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
        """A value like most that will be tried: a broken one where they are, though the ends may be whole."""
        return self.shown(self.low if self.step is not None else self.low + GOLDEN * (self.high - self.low))

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna draws from it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.step is not None:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def shown(self, value: Any) -> str:
        """A value as it is typed: a broken number to four digits, to more where four would leave the interval."""
        if self.step is not None:
            return str(int(value))
        rounded = (f"{value:.{digits}g}" for digits in range(SIGNIFICANT_DIGITS, ALL_DIGITS + 1))
        return next(text for text in rounded if self.low <= float(text) <= self.high)


Space = Choices | Interval


def read_space(override: Override) -> Space:
    """The space that an override names: choice(...), range(...), interval(...); raises UserError for any other."""
    sweep: Any = override.value()
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        raise user_error(
            f"{text_of(override)} cannot be searched", "name the choices, as in student=cnn_tiny,cnn_small"
        )
    if isinstance(sweep, IntervalSweep):
        return _read_interval(override, sweep)
    if isinstance(sweep, RangeSweep):
        return _read_range(override, sweep)
    return Choices(tuple(dict.fromkeys(override.sweep_string_iterator())))


def _read_interval(override: Override, sweep: IntervalSweep) -> Interval:
    low, high, is_log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if not low < high or (is_log and low <= 0):
        remedy = "its ends must rise" + (", from above 0" if is_log else "")
        raise user_error(f"{text_of(override)} is empty", f"{remedy}, as in tag(log,interval(0.001,0.1))")
    if not math.isfinite(high - low):
        raise user_error(f"{text_of(override)} has no end", "write two numbers, as in interval(0,1)")
    return Interval(low, high, 1 if isinstance(low, int) else None, is_log)


def _read_range(override: Override, sweep: RangeSweep) -> Space:
    """Whole numbers stay numbers for Optuna; broken ones are choices, which are typed as Hydra types them."""
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in (sweep.start, sweep.stop)):
        raise user_error(f"{text_of(override)} has no end", "write two numbers, as in range(1,9)")
    values = list(sweep.range()) if sweep.step else []
    if not values:
        raise user_error(f"{text_of(override)} is empty", "its ends must differ, as in range(1,9)")
    is_whole = all(isinstance(value, int) for value in (sweep.start, sweep.step))
    is_log = "log" in sweep.tags
    if is_log and not (is_whole and abs(sweep.step) == 1 and min(values) > 0):
        remedy = "write whole numbers from above 0, each of them, as in tag(log,range(1,100))"
        raise user_error(f"{text_of(override)} cannot be searched", remedy)
    if is_whole:
        return Interval(min(values), max(values), abs(int(sweep.step)), is_log)
    return Choices(tuple(override.sweep_string_iterator()))
