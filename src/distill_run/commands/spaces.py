"""Reads the spaces of a search from Hydra's overrides: choice(...), range(...), interval(...)."""

import math
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from distill_run.config.overrides import text_of
from distill_run.errors import user_error
from distill_run.sweeps.space import Choices, Interval, Space


def read_space(override: Override) -> Space:
    """The space that an override names: choice(...), range(...), interval(...); raises UserError for any other."""
    sweep: Any = override.value()
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
    """Whole numbers are an interval for Optuna; numbers with a fraction are choices, written as Hydra writes them."""
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
