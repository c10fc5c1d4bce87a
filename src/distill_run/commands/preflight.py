"""Everything that can be checked before Hydra makes a directory: a mistake leaves nothing behind."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf

from distill_run.config.compose import check, compose_config
from distill_run.config.explain import explain
from distill_run.config.overrides import COMPOSITION_ERRORS, keys_of, parse, text_of, values_of
from distill_run.config.schema import Settings
from distill_run.errors import Mistake, UserError, gather, show, user_error

# What a resumed run may find elsewhere than the interrupted one did.
MAY_MOVE = {
    "dataset.root": ("dataset.root", "dataset.source.root"),
    "store_dir": ("store_dir", "dataset.source.store_dir"),
    "code_dir": ("code_dir",),
    "resume": ("resume",),
}
# Nulls that the data fill in: saved with what they became.
FILLED_IN = ("dataset.num_classes", "dataset.mean", "dataset.std")


def preflight(overrides: list[str], extra_dir: Path | None, multirun: bool) -> list[Settings]:
    """The settings of a command line; raises UserError with every mistake in it, before anything is written."""
    settings = read_command(overrides, extra_dir, multirun)

    from distill_run.stages.prepare import rehearse  # torch from here on, once nothing else is wrong

    gather(partial(rehearse, point) for point in settings)
    return settings


def read_command(overrides: list[str], extra_dir: Path | None, multirun: bool) -> list[Settings]:
    """The settings of a command line; of a sweep, each swept value once, with the first value of the other keys.

    Raises UserError with every mistake that can be found without torch.
    """
    parsed = parse(overrides)
    if not multirun and (swept := [text_of(override) for override in parsed if override.is_sweep_override()]):
        raise user_error(f"{swept[0]} has several values", f"write distill-run -m {' '.join(swept)}")
    if multirun and any(override.key_or_group == "resume" for override in parsed):
        raise user_error("resume= goes on with a single run", "leave -m out")
    return gather(partial(_read_point, point, extra_dir, multirun) for point in _points(parsed))


def _read_point(overrides: list[str], extra_dir: Path | None, multirun: bool) -> Settings:
    try:
        config = compose_config(overrides, extra_dir)
    except COMPOSITION_ERRORS as error:
        raise UserError(explain(overrides, extra_dir, error)) from error
    if config.resume:
        config = resumed_config(config, overrides)
    hydra = HydraConfig.get()
    output = ("hydra.sweep.dir", hydra.sweep.dir) if multirun else ("hydra.run.dir", hydra.run.dir)
    attempts: list[Callable[[], object]] = [partial(check, config)]
    attempts += [partial(_check_writable, *place) for place in (output, ("store_dir", config.store_dir))]
    settings = gather(attempts)[0]
    assert isinstance(settings, Settings)
    return settings


def resumed_config(composed: DictConfig, overrides: list[str]) -> DictConfig:
    """The saved configuration of the run that `composed.resume` names.

    Raises UserError where there is nothing to resume, or where `overrides` contradict what was saved.
    """
    run_dir = Path(composed.resume)
    saved_path = run_dir / "config.yaml"
    if not saved_path.is_file():
        raise user_error(f"resume={run_dir} is not the directory of a run", "look into outputs/runs for it")
    if not (run_dir / "checkpoints" / "last.pt").is_file():
        raise user_error(f"resume={run_dir} has no checkpoint yet", "run its command again, without resume=")
    saved = OmegaConf.load(saved_path)
    assert isinstance(saved, DictConfig)
    mistakes: dict[Mistake, None] = {}  # several overrides may speak of one key
    for override in parse(overrides):
        key = override.key_or_group.replace("/", ".")
        if key in MAY_MOVE:
            _move(saved, key, composed)
            continue
        for name, given in _leaves(OmegaConf.select(composed, key), key):
            before = OmegaConf.select(saved, name)
            if given in ("auto", before) or (given is None and name in FILLED_IN):
                continue
            remedy = "leave that key out, or start a new run without resume="
            mistakes[Mistake(f"{name} was {show(before)}, the command says {show(given)}", remedy)] = None
    if mistakes:
        raise UserError(mistakes)
    return saved


def _move(saved: DictConfig, key: str, composed: DictConfig) -> None:
    """Bring what follows from `key` (the saved configuration is resolved) to where the command says it is now."""
    for name in MAY_MOVE[key]:
        if key == name or OmegaConf.select(saved, name) is not None:
            OmegaConf.update(saved, name, OmegaConf.select(composed, key))


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, DictConfig):
        for name in keys_of(node):
            yield from _leaves(node[name], f"{key}.{name}")
    else:
        yield key, OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _points(parsed: list[Override]) -> Iterator[list[str]]:
    """The command line without its sweeps, then each swept value in turn."""
    fixed = [text_of(override) for override in parsed if not override.is_sweep_override()]
    choices = [
        [f"{override.get_key_element()}={value}" for value in values_of(override)]
        for override in parsed
        if override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP
    ]
    firsts = [values[0] for values in choices]
    yield [*fixed, *firsts]
    for place, values in enumerate(choices):
        for value in values[1:]:
            yield [*fixed, *firsts[:place], value, *firsts[place + 1 :]]


def _check_writable(key: str, place: str) -> None:
    """Find out whether files can be made where `place` will be, without leaving one."""
    parent = Path(place).absolute()
    try:
        while not parent.exists():
            parent = parent.parent
        if max(map(len, map(os.fsencode, Path(place).absolute().parts))) > os.pathconf(parent, "PC_NAME_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise user_error(
            f"{key}={place}: cannot write in {parent} ({error.strerror})",
            f"choose another folder, as in {key}=/tmp/outputs",
        ) from error
