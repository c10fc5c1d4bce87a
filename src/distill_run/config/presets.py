"""What short forms stand for: `+sweep=NAME` for the values in conf/sweep/NAME.yaml, `glob(...)` for options' names."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import Composed, option_names
from distill_run.config.overrides import has_pattern, parse, text_of
from distill_run.config.settings import compose_or_explain
from distill_run.errors import show, user_error
from distill_run.quoting import for_hydra


def expand_presets(overrides: list[str], extra_dir: Path | None) -> tuple[list[str], bool]:
    """The overrides with each `+sweep=NAME` replaced by its values, and whether there was one.

    Where two presets name a key, the later one's values count; where the command line names a key itself, its own.
    Raises UserError for an unknown preset.
    """
    parsed = parse(overrides)
    presets = [f"+{text_of(override).lstrip('+')}" for override in parsed if override.key_or_group == "sweep"]
    if not presets:
        return overrides, False
    values: dict[str, Any] = {}
    for preset in presets:
        values |= _values_of(preset, compose_or_explain([preset], extra_dir))
    own = [override for override in parsed if override.key_or_group != "sweep"]
    named = {override.key_or_group for override in own}
    added = [f"{key}={show(value)}" for key, value in values.items() if key not in named]
    return [*added, *(text_of(override) for override in own)], True


def _values_of(preset: str, composed: Composed) -> dict[str, Any]:
    """The values of a preset; one whose file lacks its @package line lies in the configuration itself."""
    values: dict[str, Any] = {}
    for node in (composed.hydra.sweeper.params, OmegaConf.select(composed.config, "sweep")):
        values |= {} if node is None else {str(key): node[key] for key in node}
    if nested := [key for key, value in values.items() if isinstance(value, DictConfig)]:
        raise user_error(
            f"{preset} has keys below {nested[0]}, and no values", f"write {nested[0]}.KEY: 1,2,4 in its file"
        )
    if not values:
        raise user_error(f"{preset} has no values", "write them into its file, as in mode.temperature: 1,2,4")
    return values


def expand_patterns(overrides: list[str], extra_dir: Path | None) -> list[str]:
    """The overrides with each glob(...) replaced by the options that it matches, so that each can be checked.

    Raises UserError where it matches none.
    """
    return [each for override in parse(overrides) for each in _expand(override, extra_dir)]


def _expand(override: Override, extra_dir: Path | None) -> Iterator[str]:
    if not has_pattern(override):
        yield text_of(override)
        return
    pattern: Any = override.value()
    assert isinstance(pattern, Glob)
    names = option_names(override.key_or_group, extra_dir)
    matched = pattern.filter(names)
    if not matched:
        there = f"there are {', '.join(names)}" if names else f"{override.key_or_group} is no group of options"
        raise user_error(f"{text_of(override)} matches nothing", there)
    yield f"{override.get_key_element()}={','.join(map(for_hydra, matched))}"


def sweeper_overrides(composed: Composed, overrides: Sequence[str]) -> list[str]:
    """The values that a file gives to Hydra's sweeper and the command line does not give, as overrides."""
    params = composed.hydra.sweeper.params or {}
    named = {override.key_or_group for override in parse(overrides)}
    return [f"{key}={show(params[key])}" for key in params if key not in named]
