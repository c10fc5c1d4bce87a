"""Why a command line does not compose: each mistake in two lines."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import ROLES, check, compose, config_dir
from distill_run.config.overrides import COMPOSITION_ERRORS, keys_of, parse, text_of
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import Mistake, UserError, first_line, show, unknown_key

MANY_OPTIONS = 12  # with more than these, only similar ones are told


def explain(overrides: list[str], extra_dir: Path | None, error: Exception) -> list[Mistake]:
    """The mistakes because of which a command line does not compose: each override is tried alone.

    `error` is what was raised when all were composed; its first line is the answer where each override alone is fine.
    """
    parsed = parse(overrides)
    options = _group_options(parsed)
    accepted: list[str] = []
    mistakes = []
    for override in parsed:
        names = options[override.key_or_group]
        if names and override.key_or_group not in ROLES:
            if _composes([text_of(override)], extra_dir):
                accepted.append(text_of(override))
            else:
                mistakes.append(Mistake(f"{text_of(override)} is not there", _instead(override, names)))
    base = compose(accepted, extra_dir).config
    for override in parsed:
        if not options[override.key_or_group] or override.key_or_group in ROLES:
            if _composes([*accepted, text_of(override)], extra_dir):
                accepted.append(text_of(override))
            else:
                mistakes.append(_rejected_key(override, base))
    mistakes += _rejected_values(compose(accepted, extra_dir).config)
    return mistakes or [Mistake(first_line(error), "distill-run --help lists groups and keys")]


def _instead(override: Override, names: list[str]) -> str:
    """The options to choose from; of many, only those with a similar name."""
    plugin = ", or install its plugin" if override.key_or_group.startswith("hydra/") else ""
    near = difflib.get_close_matches(str(override.value()), names, n=3, cutoff=0.6)
    if len(names) <= MANY_OPTIONS or not near:
        return f"write one of {', '.join(names)}{plugin}"
    return f"did you mean {' or '.join(near)}?"


def _group_options(parsed: list[Override]) -> dict[str, list[str]]:
    """The options of each override's group; none where the override names a key."""
    with initialize_config_dir(str(config_dir()), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        keys = [override.key_or_group for override in parsed]
        return {key: list(_options(loader, key)) for key in keys}


def _options(loader: ConfigLoader, group: str) -> Iterator[str]:
    """The options of a group; experiments lie in folders as well."""
    yield from (name for name in sorted(loader.get_group_options(group)) if not name.startswith("_"))
    if group == "experiment":
        for folder in sorted(loader.get_group_options(group, ObjectType.GROUP)):
            yield from (f"{folder}/{name}" for name in _options(loader, f"{group}/{folder}"))


def _rejected_key(override: Override, base: DictConfig) -> Mistake:
    key, text = override.key_or_group, text_of(override)
    if key in ROLES:
        value = text.partition("=")[2]
        return Mistake(f"{text} does not say whose", f"write {' or '.join(f'{role}={value}' for role in ROLES[key])}")
    known = list(_all_keys(base, ""))
    if key not in known:
        return unknown_key(key, known)
    if override.is_add():
        return Mistake(f"{text}: {key} exists already", f"write {text.removeprefix('+')}")
    return Mistake(f"{text} is not accepted", f"{key} is {show(OmegaConf.select(base, key))} here")


def _rejected_values(config: DictConfig) -> list[Mistake]:
    try:
        check(config)
    except UserError as error:
        return error.mistakes
    return []


def _all_keys(node: DictConfig, prefix: str) -> Iterator[str]:
    for name in keys_of(node):
        yield f"{prefix}{name}"
        if isinstance(node[name], DictConfig):
            yield from _all_keys(node[name], f"{prefix}{name}.")


def _composes(overrides: list[str], extra_dir: Path | None) -> bool:
    try:
        compose(overrides, extra_dir)
    except COMPOSITION_ERRORS:
        return False
    return True
