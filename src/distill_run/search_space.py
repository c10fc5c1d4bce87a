"""Spaces of values in Hydra's words, as Optuna wants them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, ValueType

from distill_run.errors import user_error
from distill_run.explain import text_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SIGNIFICANT_DIGITS = 4  # of a number that is drawn from an interval: enough to tell, short enough to read


@dataclass(frozen=True)
class Choices:
    """One of several values, as they are typed."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values to check before the first trial."""
        return self.values

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

    def distribution(self) -> "BaseDistribution":
        """The space as Optuna draws from it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.step is not None:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def shown(self, value: Any) -> str:
        """A value as it is typed, a broken number to four digits."""
        return str(int(value)) if self.step is not None else f"{value:.{SIGNIFICANT_DIGITS}g}"


Space = Choices | Interval


def read_space(override: Override) -> Space:
    """The space that an override names: choice(...), range(...), interval(...); raises UserError for any other."""
    sweep: Any = override.value()
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        raise user_error(
            f"{text_of(override)} cannot be searched", "name the choices, as in student=cnn_tiny,cnn_small"
        )
    if isinstance(sweep, IntervalSweep):
        is_whole = isinstance(sweep.start, int)
        return _interval(override, sweep.start, sweep.end, 1 if is_whole else None, "log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and isinstance(sweep.step, int) and isinstance(sweep.start, int):
        values = list(sweep.range())
        return _interval(override, values[0], values[-1], sweep.step, False)
    return Choices(tuple(override.sweep_string_iterator()))


def _interval(override: Override, low: Any, high: Any, step: int | None, is_log: bool) -> Interval:
    if not low < high or (is_log and low <= 0):
        remedy = "its ends must rise" + (", from above 0" if is_log else "")
        raise user_error(f"{text_of(override)} is empty", f"{remedy}, as in tag(log,interval(0.001,0.1))")
    return Interval(low, high, step, is_log)
