"""The command `distill-search`: Optuna chooses values between grid points, judged on validation.

    distill-search 'mode.temperature=interval(1,20)' 'mode.alpha=interval(0,1)' --trials 30

A space is written as Hydra writes it: `a,b,c` or choice(a,b,c), range(1,9), interval(0,1), int(interval(1,9)) and
tag(log,interval(0.001,0.1)). All other overrides are those of distill-run. Each trial is a run in a directory of its
own. A trial that is worse than the median of the others after the same number of epochs is given up. The study is
kept in study.db, and the same command, typed again after an interruption, goes on with it.
"""

import dataclasses
import importlib.util
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from distill_run import rules
from distill_run.commands.arguments import Parser, check_config_dir
from distill_run.commands.preflight import check_writable, one_seed_a_point, preflight
from distill_run.commands.runner import run_recorded
from distill_run.commands.spaces import read_space
from distill_run.config.compose import command_line, new_variants
from distill_run.config.overrides import parse, text_of
from distill_run.config.paths import readable
from distill_run.config.presets import expand_patterns
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_or_explain
from distill_run.config.variants import Variants
from distill_run.errors import Mistake, UserError, gather, user_error
from distill_run.files import RunFiles, read_json_lines
from distill_run.sweeps.host import Place, host
from distill_run.sweeps.progress import SweepProgress
from distill_run.sweeps.request import Request
from distill_run.sweeps.search import Search
from distill_run.sweeps.space import Space

if TYPE_CHECKING:
    from optuna import Trial


def run_command(words: Sequence[str]) -> bool:
    """Search as the words after `distill-search` say; whether no trial has failed."""
    arguments = _parser().parse_intermixed_args(words)
    if importlib.util.find_spec("optuna") is None:
        raise user_error("distill-search needs Optuna", "write pip install optuna")
    _check_arguments(arguments)
    extra_dir: Path | None = arguments.config_dir
    fixed, spaces = _read_overrides(expand_patterns(readable(arguments.overrides, multirun=True), extra_dir))
    settings = _check_spaces(spaces, fixed, extra_dir)
    fixed += one_seed_a_point(settings)
    meaning = {key: dataclasses.asdict(space) for key, space in spaces.items()}
    num_trials: int = arguments.trials
    request = Request.of(_command_of(arguments), num_trials, settings, extra_dir, meaning)
    named: Path | None = arguments.search_dir
    folder = named or Path(f"{datetime.now():outputs/searches/%Y-%m-%d/%H-%M-%S-%f}")
    place = Place("--search-dir", folder, named is not None)
    run_each = partial(run_trial, fixed, extra_dir, new_variants(), settings[0].training.select_by)

    def work(progress: SweepProgress) -> None:
        search = Search(progress.directory, num_trials, arguments.search_seed, spaces)
        study = search.open_study()
        with progress.shown():
            search.run_trials(study, run_each)

    return host(request, place, list(spaces), work)


def _parser() -> Parser:
    parser = Parser(prog="distill-search", description="Search values of any keys with Optuna.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=SPACE", help="as in mode.alpha=interval(0,1)")
    parser.add_argument("--trials", metavar="N", type=int, default=20, help="the number of runs (20)")
    parser.add_argument("--search-seed", metavar="N", type=int, default=0, help="decides which values are tried (0)")
    parser.add_argument(
        "--search-dir", metavar="DIR", type=Path, help="where all files go; by default outputs/searches/DATE/TIME"
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", type=Path, help="a folder of your own models, objectives and datasets"
    )
    return parser


def _check_arguments(arguments: Namespace) -> None:
    gather(
        [
            lambda: rules.whole(1).check("--trials", arguments.trials),
            lambda: rules.SEED.check("--search-seed", arguments.search_seed),
            lambda: check_config_dir(arguments.config_dir),
            lambda: check_writable("--search-dir", str(arguments.search_dir or "outputs/searches")),
        ]
    )


def _read_overrides(overrides: list[str]) -> tuple[list[str], dict[str, Space]]:
    """The overrides that all trials share, and the space of each of the other keys."""
    parsed = parse(overrides)
    if presets := [text_of(override) for override in parsed if override.key_or_group == "sweep"]:
        raise user_error(f"{presets[0]} is a grid", "write its keys with spaces of your own")
    swept = [override for override in parsed if override.is_sweep_override()]
    if not swept:
        raise user_error("there is nothing to search", "give a space, as in 'mode.temperature=interval(1,20)'")
    keys = [override.get_key_element() for override in swept]  # with the + of a key that is added
    spaces = dict(zip(keys, gather(partial(read_space, override) for override in swept), strict=True))
    return [text_of(override) for override in parsed if override not in swept], spaces


def _check_spaces(spaces: dict[str, Space], fixed: list[str], extra_dir: Path | None) -> list[Settings]:
    """The settings at the ends of the spaces; raises UserError where a value will not be accepted."""
    ends = [f"{key}={','.join(space.ends)}" for key, space in spaces.items()]
    points = preflight([*fixed, *ends], extra_dir, multirun=True)
    if len({point.settings.training.select_by for point in points}) > 1:
        raise user_error(
            "the trials would be judged by different figures", "write one of them, as in training.select_by=accuracy"
        )
    if any(space.usual not in space.ends for space in spaces.values()):
        usual = [f"{key}={space.usual}" for key, space in spaces.items()]
        try:
            preflight([*fixed, *usual], extra_dir, multirun=True)
        except UserError as error:
            hint = "as int(interval(...)) gives them"
            raise UserError(Mistake(what, f"{remedy}, {hint}") for what, remedy in error.mistakes) from error
    return [point.settings for point in points]


def _command_of(arguments: Namespace) -> str:
    """The command that goes on with this search."""
    words = [*arguments.overrides, "--trials", str(arguments.trials), "--search-seed", str(arguments.search_seed)]
    if arguments.search_dir is not None:
        words += ["--search-dir", str(arguments.search_dir)]
    own_dir = str(arguments.config_dir) if arguments.config_dir else None
    return command_line(words, own_dir).replace("distill-run", "distill-search", 1)


def run_trial(
    fixed: list[str],
    extra_dir: Path | None,
    variants: Variants,
    select_by: str,
    values: list[str],
    run_dir: Path,
    trial: "Trial",
) -> float | None:
    """One run with the values of a trial; returns RunReport.val_goodness, None where it fails.

    `variants` compose the command lines of all trials. Raises PrunedError where Optuna gives the trial up.
    """
    from distill_run.engine.interrupt import StopRequest
    from distill_run.sweeps.pruning import Pruner  # torch is loaded only here

    overrides = [*fixed, *values]

    def compose() -> DictConfig:
        # Each value was checked beforehand, but not every combination of them.
        return compose_or_explain(overrides, extra_dir, variants).config

    stop = StopRequest()
    pruner = Pruner(trial, stop, select_by)
    command = command_line(overrides, str(extra_dir.resolve()) if extra_dir else None)
    goodness = run_recorded(compose, overrides, run_dir, command, [pruner], stop)
    if goodness is not None:  # the run may have been completed before the search was killed
        pruner.report(read_json_lines(RunFiles(run_dir).metrics))
    return goodness
