"""Overrides as Hydra reads them."""

from functools import partial

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from distill_run.errors import gather, user_error

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException)


def parse(overrides: list[str]) -> list[Override]:
    """The overrides as Hydra reads them; raises UserError with all that it cannot read."""
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
    """The values that a swept override goes through, as they are typed."""
    try:
        return list(override.sweep_string_iterator())
    except ValueError as error:
        raise user_error(f"{text_of(override)} cannot be read: {error}", "write its values, as in 1,2,4") from error


def keys_of(node: DictConfig) -> list[str]:
    """The keys right below a node."""
    return [str(key) for key in node]
