"""Everything that can be checked before Hydra makes a directory: a mistake leaves nothing behind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distill_run.config import check, compose_config, config_dir
from distill_run.errors import Mistake, UserError, show, user_error
from distill_run.schema import unknown_key

# What a resumed run may find elsewhere than the interrupted one did.
MAY_MOVE = ("dataset.root", "dataset.source.root", "store_dir", "code_dir", "resume")


def preflight(overrides: list[str], extra_dir: Path | None, multirun: bool) -> None:
    """Raise UserError with every mistake in a command line, before anything is written.

    Of a sweep, each swept value is tried once, with the first value of the other keys.
    """
    parsed = _parse(overrides)
    if not multirun and (swept := [o.input_line for o in parsed if o.is_sweep_override()]):
        raise user_error(f"{swept[0]} has several values", f"write distill-run -m {' '.join(swept)}")
    mistakes: dict[Mistake, None] = {}  # in order, each once
    settings = []
    for point in _points(parsed):
        try:
            config = _compose(point, extra_dir)
            if config.resume:
                config = resumed_config(Path(config.resume), point)
            settings.append(check(config))
            _check_writable(HydraConfig.get(), config, mistakes)
        except UserError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if not mistakes:
        from distill_run.run import rehearse  # torch from here on

        for point_settings in settings:
            try:
                rehearse(point_settings)
            except UserError as error:
                mistakes.update(dict.fromkeys(error.mistakes))
    if mistakes:
        raise UserError(mistakes)


def resumed_config(run_dir: Path, overrides: list[str]) -> DictConfig:
    """The saved configuration of an interrupted run; raises UserError where `overrides` contradict it."""
    saved_path = run_dir / "config.yaml"
    if not saved_path.is_file():
        raise user_error(f"resume={run_dir} is not the directory of a run", "look into outputs/runs for it")
    if not (run_dir / "checkpoints" / "last.pt").is_file():
        raise user_error(f"resume={run_dir} has no checkpoint yet", "run its command again, without resume=")
    saved = OmegaConf.load(saved_path)
    assert isinstance(saved, DictConfig)
    composed = compose_config([override for override in overrides if not override.startswith("resume=")])
    mistakes = []
    for override in _parse(overrides):
        key = override.key_or_group.replace("/", ".")
        for name, given in _leaves(OmegaConf.select(composed, key), key):
            before = OmegaConf.select(saved, name)
            if given in (None, "auto", before) or name in MAY_MOVE:
                continue
            remedy = "leave that key out, or start a new run without resume="
            mistakes.append(Mistake(f"{name} was {show(before)}, the command says {show(given)}", remedy))
        if key in MAY_MOVE and key != "resume":
            OmegaConf.update(saved, key, OmegaConf.select(composed, key))
    if mistakes:
        raise UserError(mistakes)
    saved.resume = str(run_dir)
    return saved


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, DictConfig):
        for name in node:
            yield from _leaves(node[name], f"{key}.{name}")
    else:
        yield key, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _parse(overrides: list[str]) -> list[Override]:
    mistakes = []
    parsed = []
    for override in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([override])
        except HydraException:
            mistakes.append(Mistake(f"{override} cannot be read", "write key=value, and quote special characters"))
    if mistakes:
        raise UserError(mistakes)
    return parsed


def _points(parsed: list[Override]) -> Iterator[list[str]]:
    """The command line without its sweeps, then each swept value in turn."""
    fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        for override in parsed
        if override.is_discrete_sweep() and not override.is_glob_sweep()  # type: ignore[attr-defined]
    ]
    firsts = [values[0] for values in choices]
    yield [*fixed, *firsts]
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [*fixed, *firsts[:place], value, *firsts[place + 1 :]]


def _compose(overrides: list[str], extra_dir: Path | None) -> DictConfig:
    try:
        return compose_config(overrides, extra_dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(list(_explain(overrides, extra_dir, error))) from error


def _explain(overrides: list[str], extra_dir: Path | None, error: Exception) -> Iterator[Mistake]:
    """The mistakes for which a command line does not compose: each override is looked at alone."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        options = {o.key_or_group: loader.get_group_options(o.key_or_group) for o in _parse(overrides)}
    groups = [o for o in _parse(overrides) if options[o.key_or_group]]
    accepted = []
    found = False
    for override in groups:
        if _composes([override.input_line], extra_dir):
            accepted.append(override.input_line)
        else:
            found = True
            remedy = f"write one of {', '.join(sorted(options[override.key_or_group]))}"
            yield Mistake(f"{override.input_line} is not there", remedy)
    base = compose_config(accepted, extra_dir)
    known = [name for name, _ in _all_keys(base, "")]
    for override in _parse(overrides):
        if override in groups or _composes([*accepted, override.input_line], extra_dir):
            continue
        found = True
        key = override.key_or_group
        if override.is_add() and key in known:
            yield Mistake(f"{override.input_line}: {key} exists already", f"write {override.input_line[1:]}")
        elif key not in known:
            yield unknown_key(key, known)
        else:
            yield Mistake(f"{override.input_line} is not accepted", f"{key} is {show(OmegaConf.select(base, key))} here")
    if not found:
        yield Mistake(str(error).splitlines()[0], "distill-run --help lists groups and keys")


def _all_keys(node: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in node:
        yield f"{prefix}{name}", node[name]
        if isinstance(node[name], DictConfig):
            yield from _all_keys(node[name], f"{prefix}{name}.")


def _composes(overrides: list[str], extra_dir: Path | None) -> bool:
    try:
        compose_config(overrides, extra_dir)
    except (HydraException, OmegaConfBaseException):
        return False
    return True


def _check_writable(hydra: Any, config: DictConfig, mistakes: dict[Mistake, None]) -> None:
    """Find out whether files can be made where the run and the store will be, without leaving one."""
    for key, place in (("hydra.run.dir", hydra.run.dir), ("store_dir", config.store_dir)):
        parent = Path(place).absolute()
        while not parent.exists():
            parent = parent.parent
        try:
            tempfile.TemporaryFile(dir=parent).close()
        except OSError as error:
            what = f"{key}={place}: cannot write in {parent} ({error.strerror})"
            mistakes[Mistake(what, f"choose another folder, as in {key}=/tmp/outputs")] = None
