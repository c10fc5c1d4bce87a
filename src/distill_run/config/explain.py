"""Why a command line does not compose: each mistake in two lines."""

import difflib
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import (
    ROLES,
    Composed,
    check,
    compose,
    config_dir,
    literal_config,
    option_names,
    option_paths,
    plain_config,
)
from distill_run.config.hints import MANY_OPTIONS, all_keys, meant_overrides, missing_argument
from distill_run.config.overrides import COMPOSITION_ERRORS, parse, parse_or_none, text_of, values_of
from distill_run.config.paths import SEVERAL, SINGLE
from distill_run.config.plugins import missing_package
from distill_run.config.versions import VERSION_BASE
from distill_run.errors import Mistake, UserError, first_line, show, unknown_key

MOST_SAID = 400  # characters of what Hydra says of a file


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
            if (own_error := _error_of([text_of(override)], extra_dir)) is None:
                accepted.append(text_of(override))
            else:
                refused.append(f"{group.replace('/', '.')}.")
                is_there = set(_chosen(override)) <= set(names)
                mistakes.append(
                    _damaged_option(override, extra_dir, own_error) if is_there else _missing_option(override, names)
                )
    base = compose(accepted, extra_dir)
    for override in parsed:
        is_key = not options[override.key_or_group] or override.key_or_group in ROLES
        if is_key and not override.key_or_group.startswith(tuple(refused)):
            if _error_of([*accepted, text_of(override)], extra_dir) is None:
                accepted.append(text_of(override))
            else:
                mistakes.append(_rejected_key(override, base, extra_dir))
    mistakes += _rejected_values(compose(accepted, extra_dir).config)
    return mistakes or [Mistake(first_line(error), "distill-run --help lists groups and keys")]


def _missing_option(override: Override, names: list[str]) -> Mistake:
    """The mistake for an option that is not there; of many options, only those with a similar name are told."""
    value = str(override.value())
    if mistake := missing_package(override.key_or_group, value):
        return mistake
    if len(names) <= MANY_OPTIONS:
        remedy = f"write one of {', '.join(names)}"
    elif near := difflib.get_close_matches(value, names, n=3, cutoff=0.6):
        remedy = f"did you mean {' or '.join(near)}?"
    else:
        remedy = f"distill-run --help lists what there is for {override.key_or_group}"
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
        return Mistake(f"{text}: {key} exists already", f"write {key}={shlex.quote(value)}")
    return Mistake(f"{text} is not accepted", f"{key} is {show(OmegaConf.select(base.config, key))} here")


def _rejected_values(config: DictConfig) -> list[Mistake]:
    try:
        check(config)
    except UserError as error:
        return error.mistakes
    return []


def _error_of(overrides: list[str], extra_dir: Path | None) -> Exception | None:
    """Why these overrides do not compose; None where they do."""
    try:
        compose(overrides, extra_dir)
    except COMPOSITION_ERRORS as error:
        return error
    return None


def _chosen(override: Override) -> list[str]:
    """The options that an override of a group names."""
    if override.is_discrete_sweep():
        return values_of(override)
    value = override.value()
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _damaged_option(override: Override, extra_dir: Path | None, error: Exception) -> Mistake:
    """The mistake where an option is there, and what its file says does not compose."""
    said = textwrap.shorten(str(error).partition("Config search path")[0], MOST_SAID, placeholder=" ...")
    paths = option_paths(override.key_or_group, extra_dir)
    files = " or ".join(str(paths[name]) for name in _chosen(override) if name in paths)
    return Mistake(f"{text_of(override)} has a mistake in its file: {said}", f"mend {files or 'its file'}")


@contextmanager
def naming_files(overrides: Sequence[str], extra_dir: Path | None) -> Iterator[None]:
    """Let each mistake say which file of the user's it stands in, and where a relative path was looked for."""
    try:
        yield
    except UserError as error:
        mistakes = [_with_place(mistake, overrides) for mistake in error.mistakes]
        if extra_dir is not None:
            mistakes = [_with_file(mistake, overrides, extra_dir) for mistake in mistakes]
        if mistakes == error.mistakes:
            raise
        raise UserError(mistakes) from error


def _with_place(mistake: Mistake, overrides: Sequence[str]) -> Mistake:
    """The mistake; where it is about a relative path of the command line that is not there, with where it begins."""
    for override in filter(None, map(parse_or_none, overrides)):
        path = override.value()
        is_read = override.key_or_group in (*SINGLE, *SEVERAL) and override.key_or_group != "store_dir"
        if not is_read or not isinstance(path, str) or path not in mistake.what:
            continue
        if path and not Path(path).is_absolute() and not Path(path).exists():
            return Mistake(mistake.what, f"{mistake.remedy}; {path} is looked for in {Path.cwd()}")
    return mistake


def _with_file(mistake: Mistake, overrides: Sequence[str], extra_dir: Path) -> Mistake:
    """The mistake; where it is about a key that a chosen file sets, and the command line does not, with this file."""
    key = re.split(r"[^\w.]", mistake.what, maxsplit=1)[0]
    typed_keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    for override in filter(None, map(parse_or_none, overrides)):
        paths = option_paths(override.key_or_group, extra_dir)
        for path in [paths[name] for name in _chosen(override) if name in paths]:
            if not path.is_relative_to(extra_dir):
                continue
            if mistake.what.startswith("experiment is not a key"):
                return Mistake(f"{path} does not begin with # @package _global_", "write this line at its top")
            if key not in typed_keys and key in _keys_set_by(path, override.key_or_group):
                return Mistake(f"{mistake.what} (in {path})", mistake.remedy)
    return mistake


def _keys_set_by(path: Path, group: str) -> set[str]:
    """The keys of the configuration that an option's file sets; none where it cannot be read."""
    try:
        is_global = "@package _global_" in path.read_text(encoding="utf-8")
        node = OmegaConf.load(path)
    except COMPOSITION_ERRORS:
        return set()
    if not isinstance(node, DictConfig):
        return set()
    prefix = "" if is_global else f"{group.replace('/', '.')}."
    return set(all_keys(literal_config(plain_config(node, resolve=False)), prefix))
