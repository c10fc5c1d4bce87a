"""Overrides as Hydra reads them."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill_run.errors import gather, user_error

# Hydra raises a plain ValueError for a key of a list that is no number, as in student.hidden.x=1, and the others for
# values where it expects names, as in dataset=[[1]]; a YAML file of the user may not be readable.
COMPOSITION_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    RecursionError,
    YAMLError,
)


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them; raises UserError that lists all that it cannot read."""
    return gather(partial(_parse_one, override) for override in overrides)


def _parse_one(text: str) -> Override:
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        raise user_error(f"{text} cannot be read", "write key=value, and quote special characters") from error
    return override


def text_of(override: Override) -> str:
    """The override as it was typed."""
    assert override.input_line is not None
    return override.input_line


def values_of(override: Override) -> list[str]:
    """The values that a swept override goes through, as one types them."""
    try:
        return list(override.sweep_string_iterator())
    except ValueError as error:
        raise user_error(f"{text_of(override)} cannot be read: {error}", "write its values, as in 1,2,4") from error


def has_pattern(override: Override) -> bool:
    """Whether the values are given by a pattern, as in glob(*): only Hydra knows which they are."""
    return override.value_type is ValueType.GLOB_CHOICE_SWEEP


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that are given several values."""
    return [override.key_or_group for override in parse(overrides) if override.is_sweep_override()]


def count_points(overrides: Sequence[str]) -> int | None:
    """The number of combinations of the swept values; None where a pattern such as glob(*) is among them."""
    swept = [override for override in parse(overrides) if override.is_sweep_override()]
    if any(map(has_pattern, swept)):
        return None
    return math.prod(len(values_of(override)) for override in swept)


def points_to_check(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Command lines without sweeps in which each swept value stands once, beside the first values of the others."""
    fixed = [text_of(override) for override in parsed if not override.is_sweep_override()]
    choices = []
    for override in parsed:
        if override.is_discrete_sweep() and not has_pattern(override):
            choices.append([f"{override.get_key_element()}={value}" for value in values_of(override)])
    firsts = [values[0] for values in choices]
    yield [*fixed, *firsts]
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [*fixed, *firsts[:place], value, *firsts[place + 1 :]]


def keys_of(node: DictConfig) -> list[str]:
    """The keys right below a node."""
    return [str(key) for key in node]
