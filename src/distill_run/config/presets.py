"""Presets of sweeps: `+sweep=NAME` stands for the values in conf/sweep/NAME.yaml."""

from pathlib import Path

from distill_run.config.overrides import parse, text_of
from distill_run.config.settings import compose_or_explain


def expand_presets(overrides: list[str], extra_dir: Path | None) -> tuple[list[str], bool]:
    """The overrides with each `+sweep=NAME` replaced by its values, and whether there was one.

    Where the command line names a key itself, its own value counts. Raises UserError for an unknown preset.
    """
    parsed = parse(overrides)
    presets = [f"+{text_of(override).removeprefix('+')}" for override in parsed if override.key_or_group == "sweep"]
    if not presets:
        return overrides, False
    values = compose_or_explain(presets, extra_dir).hydra.sweeper.params
    own = [override for override in parsed if override.key_or_group != "sweep"]
    named = {override.key_or_group for override in own}
    added = [f"{key}={value}" for key, value in values.items() if key not in named]
    return [*added, *(text_of(override) for override in own)], True
