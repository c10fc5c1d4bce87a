"""Everything that can be checked before a directory is made: a mistake leaves nothing behind."""

import errno
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from omegaconf import DictConfig

from distill_run.commands.plugins import check_keys
from distill_run.config.compose import Composed, new_variants
from distill_run.config.overrides import parse, points_to_check, text_of
from distill_run.config.paths import SEVERAL, SINGLE, home
from distill_run.config.plugins import check_engine, is_here
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_or_explain, settings_of
from distill_run.config.variants import Variants
from distill_run.errors import gather, user_error
from distill_run.quoting import typed

LOADING = "loading PyTorch ..."


@dataclass(frozen=True)
class Checked:
    """A command line without mistakes, its settings, and the folder of its files."""

    settings: Settings
    composed: Composed
    output_dir: Path


def preflight(overrides: list[str], extra_dir: Path | None, multirun: bool) -> list[Checked]:
    """The command line of a run, or those of a sweep's swept values; raises UserError with every mistake in them."""
    announce("checking the command ...")
    points = read_command(overrides, extra_dir, multirun)
    announce(LOADING)

    from distill_run.stages.rehearse import rehearse  # torch is loaded only here, once nothing else is wrong

    # No component depends on the seed: of a sweep over hundreds of seeds, one is tried.
    different = {repr(replace(point.settings, seed=0)): point for point in points}
    gather(partial(rehearse, point.settings, is_here(point.composed.hydra)) for point in different.values())
    return points


def announce(text: str) -> None:
    """Write what is about to happen, at once; nothing where torch is loaded, for then it does not take seconds."""
    if "torch" not in sys.modules:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def read_command(overrides: list[str], extra_dir: Path | None, multirun: bool) -> list[Checked]:
    """The same without the checks that need torch.

    Of a sweep, each swept value is checked once, together with the first value of every other key.
    """
    parsed = parse(overrides)
    if not multirun and (swept := [text_of(override) for override in parsed if override.is_sweep_override()]):
        key, _, value = swept[0].partition("=")
        one = f", or {typed(key, value)} for one path" if key in (*SINGLE, *SEVERAL) else ""
        raise user_error(f"{swept[0]} has several values", f"write {shlex.join(['distill-run', '-m', *swept])}{one}")
    if multirun and any(override.key_or_group == "resume" for override in parsed):
        raise user_error("resume= goes on with a single run", "leave -m out")
    if multirun and any(override.key_or_group == "verify" for override in parsed):
        raise user_error("verify= trains a single run again", "leave -m out")
    variants = new_variants()
    return gather(partial(_read_point, point, extra_dir, multirun, variants) for point in points_to_check(parsed))


def _read_point(overrides: list[str], extra_dir: Path | None, multirun: bool, variants: Variants) -> Checked:
    composed = compose_or_explain(overrides, extra_dir, variants)
    if multirun:
        key, output_dir = "hydra.sweep.dir", home("hydra.sweep.dir", composed.hydra.sweep.dir)
    else:
        key, output_dir = "hydra.run.dir", home("hydra.run.dir", composed.hydra.run.dir)
    attempts: list[Callable[[], object]] = [
        partial(settings_of, composed.config, overrides),
        partial(check_writable, key, output_dir),
        partial(_check_hydra, composed.hydra),
    ]
    settings = gather(attempts)[0]
    assert isinstance(settings, Settings)
    check_writable("store_dir", settings.store_dir)
    return Checked(settings, composed, Path(output_dir))


def _check_hydra(own: DictConfig) -> None:
    check_engine(own)
    check_keys(own)  # only now: where a launcher's package is missing, nobody knows its keys


def one_seed_a_point(points: Iterable[Settings]) -> list[str]:
    """The override that gives each point of a sweep a single student, unless its command says how many.

    Raises UserError where the repeats of two points would share seeds: their figures would not be independent.
    """
    several = list(points)
    repeats = max(settings.repeats or 1 for settings in several)
    seeds = sorted({settings.seed for settings in several})
    if any(second - first < repeats for first, second in pairwise(seeds)):
        apart = ",".join(str(seeds[0] + repeats * place) for place in range(len(seeds)))
        raise user_error(
            f"with repeats={repeats}, the points of seed={','.join(map(str, seeds))} share seeds",
            f"write seed={apart}, or leave repeats out",
        )
    is_open = any(settings.repeats is None and settings.dataset.repeats > 1 for settings in several)
    return ["repeats=1"] if is_open else []


def check_writable(key: str, place: str) -> None:
    """Raise UserError where no files can be made in `place`, which may not be there yet; no file is left behind."""
    parent = Path(place).absolute()
    try:
        while not parent.exists():
            if parent.is_symlink():
                raise user_error(
                    f"{key}={place}: {parent} is a link to {parent.readlink()}, which does not exist",
                    f"mount that disk or mend the link, or choose another folder, as in {key}=/tmp/outputs",
                )
            parent = parent.parent
        if max(map(len, map(os.fsencode, Path(place).absolute().parts))) > os.pathconf(parent, "PC_NAME_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise user_error(
            f"{key}={place}: cannot write in {parent} ({error.strerror})",
            f"choose another folder, as in {key}=/tmp/outputs",
        ) from error
