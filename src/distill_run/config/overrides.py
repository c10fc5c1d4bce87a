"""Overrides as Hydra reads them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache, partial

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_run.errors import UserError, gather, user_error

# Hydra raises a plain ValueError for a key of a list that is no number, as in student.hidden.x=1, the others for values
# where it expects names, as in dataset=[[1]], and hands on what is raised where a YAML file is read.
COMPOSITION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    RecursionError,
    OSError,
    YAMLError,
)


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them; raises UserError that lists all that it cannot read."""
    return gather(partial(_parse_one, override) for override in overrides)


@cache
def _parser() -> OverridesParser:
    """Hydra's parser; to make it takes longer than to read an override."""
    return OverridesParser.create()


def _parse_one(text: str) -> Override:
    try:
        (override,) = _parser().parse_overrides([text])
    except HydraException as error:
        raise user_error(f"{text} cannot be read", "write key=value, and quote special characters") from error
    return override


def parse_or_none(text: str) -> Override | None:
    """The override as Hydra reads it; None where it cannot."""
    try:
        return _parse_one(text)
    except UserError:
        return None


def text_of(override: Override) -> str:
    """The override as it was typed."""
    assert override.input_line is not None
    return override.input_line


def values_of(override: Override) -> list[str]:
    """The values that a swept override goes through, as one types them; raises UserError where there are none."""
    try:
        values = list(override.sweep_string_iterator())
    except (ValueError, HydraException) as error:
        raise user_error(f"{text_of(override)} cannot be read: {error}", "write its values, as in 1,2,4") from error
    if not values:
        raise user_error(f"{text_of(override)} has no values", "its ends must differ, as in range(1,9)")
    return values


def has_pattern(override: Override) -> bool:
    """Whether the values are given by a pattern, as in glob(*)."""
    return override.value_type is ValueType.GLOB_CHOICE_SWEEP


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that are given several values."""
    return [override.key_or_group for override in parse(overrides) if override.is_sweep_override()]


def count_points(overrides: Sequence[str]) -> int:
    """The number of combinations of the swept values."""
    return math.prod(len(values_of(override)) for override in parse(overrides) if override.is_sweep_override())


def all_points(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The command line of each point, in the order in which Hydra's own sweeper numbers them.

    Of two overrides of one key the later one counts.
    """
    choices = {}
    for override in parse(overrides):
        is_swept = override.is_sweep_override()
        key = override.get_key_element()
        values = values_of(override) if is_swept else [override.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    yield from map(list, itertools.product(*choices.values()))


def points_to_check(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Command lines without sweeps in which each swept value stands once, beside the first values of the others."""
    fixed = [text_of(override) for override in parsed if not override.is_sweep_override()]
    choices = []
    for override in parsed:
        if override.is_discrete_sweep():
            choices.append([f"{override.get_key_element()}={value}" for value in values_of(override)])
    firsts = [values[0] for values in choices]
    yield [*fixed, *firsts]
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [*fixed, *firsts[:place], value, *firsts[place + 1 :]]


def keys_of(node: DictConfig) -> list[str]:
    """The keys right below a node."""
    return [str(key) for key in node]
