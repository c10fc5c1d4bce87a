"""Why a command line does not compose: each mistake in two lines."""

import difflib
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import ROLES, Composed, check, compose, config_dir, option_names
from distill_run.config.hints import MANY_OPTIONS, all_keys, meant_overrides, missing_argument
from distill_run.config.overrides import COMPOSITION_ERRORS, parse, text_of
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import Mistake, UserError, first_line, show, unknown_key

# Plug-ins of Hydra: which package has an option that this installation lacks.
PLUGINS = {
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "ray": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
    },
    "hydra/sweeper": {
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
        "optuna": "hydra-optuna-sweeper",
    },
}


def explain(overrides: list[str], extra_dir: Path | None, error: Exception) -> list[Mistake]:
    """The mistakes because of which a command line does not compose: each override is tried alone.

    `error` is what was raised when all were composed; its first line is the answer where each override alone is fine.
    """
    parsed = parse(overrides)
    options = _group_options(parsed, extra_dir)
    accepted: list[str] = []
    refused: list[str] = []  # the keys below a group whose option is not there: nobody can say which they are
    mistakes = []
    for override in parsed:
        group, names = override.key_or_group, options[override.key_or_group]
        if names and group not in ROLES:
            if _composes([text_of(override)], extra_dir):
                accepted.append(text_of(override))
            else:
                refused.append(f"{group.replace('/', '.')}.")
                mistakes.append(_missing_option(override, names))
    base = compose(accepted, extra_dir)
    for override in parsed:
        is_key = not options[override.key_or_group] or override.key_or_group in ROLES
        if is_key and not override.key_or_group.startswith(tuple(refused)):
            if _composes([*accepted, text_of(override)], extra_dir):
                accepted.append(text_of(override))
            else:
                mistakes.append(_rejected_key(override, base, extra_dir))
    mistakes += _rejected_values(compose(accepted, extra_dir).config)
    return mistakes or [Mistake(first_line(error), "distill-run --help lists groups and keys")]


def _missing_option(override: Override, names: list[str]) -> Mistake:
    """The mistake for an option that is not there; of many options, only those with a similar name are told."""
    value = str(override.value())
    if package := PLUGINS.get(override.key_or_group, {}).get(value):
        return Mistake(f"{text_of(override)} needs {package}, which is not installed", f"write pip install {package}")
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.6)
    is_short = len(names) <= MANY_OPTIONS or not near
    remedy = f"write one of {', '.join(names)}" if is_short else f"did you mean {' or '.join(near)}?"
    return Mistake(f"{text_of(override)} is not there", remedy)


def _group_options(parsed: list[Override], extra_dir: Path | None) -> dict[str, list[str]]:
    """The options of each override's group, the user's own among them; none where the override names a key."""
    with initialize_config_dir(str(config_dir()), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        keys = [override.key_or_group for override in parsed]
        known = {key: {*loader.get_group_options(key), *option_names(key, extra_dir)} for key in keys}
        return {key: sorted(name for name in names if not name.startswith("_")) for key, names in known.items()}


def _rejected_key(override: Override, base: Composed, extra_dir: Path | None) -> Mistake:
    key, text = override.key_or_group, text_of(override)
    value, known = text.partition("=")[2], list(all_keys(base.config))
    if key in ROLES:
        return Mistake(f"{text} does not say whose", f"write {meant_overrides(key, value, known)}")
    if key not in known:
        if meant := meant_overrides(key, value, known):
            return Mistake(f"{key} is not a key of the configuration", f"write {meant}")
        names = (key, f"training.student.optimizer.{key}", f"mode.{key}")
        lacking = (missing_argument(name, text, base, extra_dir) for name in names)
        return next(filter(None, lacking), None) or unknown_key(key, known)
    if override.is_add():
        return Mistake(f"{text}: {key} exists already", f"write {text.removeprefix('+')}")
    return Mistake(f"{text} is not accepted", f"{key} is {show(OmegaConf.select(base.config, key))} here")


def _rejected_values(config: DictConfig) -> list[Mistake]:
    try:
        check(config)
    except UserError as error:
        return error.mistakes
    return []


def _composes(overrides: list[str], extra_dir: Path | None) -> bool:
    try:
        compose(overrides, extra_dir)
    except COMPOSITION_ERRORS:
        return False
    return True
