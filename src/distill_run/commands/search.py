"""The command `distill-search`: values between grid points, chosen by Optuna, judged by validation accuracy.

    distill-search 'mode.temperature=interval(1,20)' 'mode.alpha=interval(0,1)' --trials 30

A space is written in Hydra's words: `a,b,c` or choice(a,b,c), range(1,9), interval(0,1), int(interval(1,9)) and
tag(log,interval(0.001,0.1)). All other overrides are those of distill-run. Each trial is a run in a directory of its
own; one that is worse than the median of the others after as many epochs is given up. The study is kept in study.db,
and the same command, typed again after an interruption, goes on with it.
"""

import dataclasses
import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from distill_run import rules
from distill_run.commands.arguments import Parser
from distill_run.commands.preflight import preflight
from distill_run.config.compose import command_line, compose_config, offer_roles, register
from distill_run.config.explain import explain
from distill_run.config.overrides import COMPOSITION_ERRORS, parse, text_of
from distill_run.config.schema import Settings
from distill_run.console import Console
from distill_run.errors import Mistake, PrunedError, UserError, gather, leave, user_error
from distill_run.store import fingerprint
from distill_run.sweeps.progress import SweepProgress
from distill_run.sweeps.report.pages import write_sweep_report
from distill_run.sweeps.report.results import tell_sweep_results
from distill_run.sweeps.request import Request, dated_directory, named_directory, record_failure
from distill_run.sweeps.space import Space, read_space

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY = "study.db"
STARTUP_TRIALS = 5  # that are run to their end before any is given up
WARMUP_EPOCHS = 1  # after which none is given up yet
MAX_SEED = 2**32  # of a sampler


def main() -> NoReturn:
    """Run the command line in sys.argv; exits as distill-run does."""
    register()
    leave(lambda: _search(_arguments().parse_intermixed_args()))


def _arguments() -> Parser:
    parser = Parser(prog="distill-search", description="Search values of any keys with Optuna.", allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=SPACE", help="as in mode.alpha=interval(0,1)")
    parser.add_argument("--trials", metavar="N", type=int, default=20, help="runs in all (20)")
    parser.add_argument("--search-seed", metavar="N", type=int, default=0, help="of the values that are tried (0)")
    parser.add_argument(
        "--search-dir", metavar="DIR", type=Path, help="where it all goes; by default outputs/searches/DATE/TIME"
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", type=Path, help="a folder of your own models, objectives and datasets"
    )
    return parser


def _search(arguments: Any) -> bool:
    """Search as the command line says; whether no trial has failed."""
    if importlib.util.find_spec("optuna") is None:
        raise user_error("distill-search needs Optuna", "write pip install optuna")
    extra_dir: Path | None = arguments.config_dir
    _check_arguments(arguments)
    if extra_dir is not None:
        offer_roles(extra_dir)
    fixed, spaces = _read_overrides(arguments.overrides)
    settings = _check_spaces(spaces, fixed, extra_dir)
    command = _command_of(arguments)
    request = Request.of(command, settings, extra_dir)
    meaning = {key: dataclasses.asdict(space) for key, space in spaces.items()}
    request = dataclasses.replace(request, inputs=fingerprint({"sweep": request.inputs, "spaces": meaning}))
    with _directory(arguments.search_dir, request) as folder:
        return Search(folder, arguments.trials, arguments.search_seed, spaces, fixed, extra_dir).run(command)


def _check_arguments(arguments: Any) -> None:
    def check_config_dir() -> None:
        if arguments.config_dir is not None and not arguments.config_dir.is_dir():
            what = f"--config-dir {arguments.config_dir} is not a folder"
            raise user_error(what, "give the folder of your own files")

    gather(
        [
            lambda: rules.whole(1).check("--trials", arguments.trials),
            lambda: rules.SEED.check("--search-seed", arguments.search_seed),
            check_config_dir,
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
    spaces = dict(zip(map(_key_of, swept), gather(partial(read_space, override) for override in swept), strict=True))
    return [text_of(override) for override in parsed if override not in swept], spaces


def _check_spaces(spaces: dict[str, Space], fixed: list[str], extra_dir: Path | None) -> list[Settings]:
    """The settings at the ends of the spaces; raises UserError where a value will not be accepted."""
    ends = [f"{key}={','.join(space.ends)}" for key, space in spaces.items()]
    settings = preflight([*fixed, *ends], extra_dir, multirun=True)
    usual = [f"{key}={space.usual}" for key, space in spaces.items()]
    has_more = any(space.usual not in space.ends for space in spaces.values())
    try:
        if has_more:
            preflight([*fixed, *usual], extra_dir, multirun=True)
    except UserError as error:
        hint = "as int(interval(...)) gives them"
        raise UserError(Mistake(what, f"{remedy}, {hint}") for what, remedy in error.mistakes) from error
    return settings


def _key_of(override: Override) -> str:
    key: str = override.get_key_element()  # with the + of one that is added
    return key


def _command_of(arguments: Any) -> str:
    """The command that goes on with this search."""
    words = [*arguments.overrides, "--trials", str(arguments.trials), "--search-seed", str(arguments.search_seed)]
    if arguments.search_dir is not None:
        words += ["--search-dir", str(arguments.search_dir)]
    own_dir = str(arguments.config_dir) if arguments.config_dir else None
    return command_line(words, own_dir).replace("distill-run", "distill-search", 1)


@contextmanager
def _directory(named: Path | None, request: Request) -> Iterator[Path]:
    """The directory of the search, locked for the time of the block."""
    with ExitStack() as stack:
        try:
            new = named or Path(f"{datetime.now():outputs/searches/%Y-%m-%d/%H-%M-%S-%f}")
            folder = stack.enter_context((named_directory if named else dated_directory)(new, request))
        except OSError as error:
            raise user_error(f"--search-dir {new}: {error.strerror}", "name a folder that is empty or new") from error
        yield folder


@dataclass
class Search:
    """The trials in `folder`, `num_trials` in all, over `spaces`; `fixed` are the overrides that all of them share."""

    folder: Path
    num_trials: int
    seed: int
    spaces: dict[str, Space]
    fixed: list[str]
    extra_dir: Path | None

    def run(self, command: str) -> bool:
        """Run the trials that are left, tell how they go, and write the report, however it ends.

        Returns whether none has failed. `command` is what goes on with the search after an interruption.
        """
        console = Console()
        progress = SweepProgress(self.folder, self.num_trials, list(self.spaces), console)
        study = self.open_study()
        try:
            with progress.told():
                while self.num_ended(study) < self.num_trials:
                    self.run_trial(study)
        except KeyboardInterrupt:
            console.note(f"interrupted; the same command goes on with it: {command}")
            raise
        finally:
            if progress.ended:
                tell_sweep_results(console, write_sweep_report([self.folder], self.folder), self.folder)
        return "failed" not in progress.ended.values()

    def open_study(self) -> "Study":
        """The study in the folder's sqlite file; trials that a killed process was running are queued again."""
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{self.folder / STUDY}",
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            # Its n_warmup_steps is the first step that may be the last, and our steps, epochs, begin with 1.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS + 1),
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=TrialState.FAIL)
            shutil.rmtree(self.folder / str(trial.number), ignore_errors=True)
        # A sampler draws the same numbers for the same seed: one that goes on needs another.
        study.sampler = optuna.samplers.TPESampler(seed=(self.seed + len(study.trials)) % MAX_SEED)
        return study

    def num_ended(self, study: "Study") -> int:
        """How many trials have an outcome, failures included; those that were killed have no folder any more."""
        return sum(trial.state.is_finished() and (self.folder / str(trial.number)).is_dir() for trial in study.trials)

    def run_trial(self, study: "Study") -> None:
        """One run at values that the study asks for, whose outcome it is told."""
        from optuna.trial import TrialState

        from distill_run.run import run  # torch from here on

        trial = study.ask({key: space.distribution() for key, space in self.spaces.items()})
        overrides = [*self.fixed, *(f"{key}={space.shown(trial.params[key])}" for key, space in self.spaces.items())]
        run_dir = self.folder / str(trial.number)
        try:
            config = self.compose(overrides)
            with _logged(run_dir):
                report = run(config, run_dir, _reporting_to(trial, config.training.student.epochs))
            study.tell(trial, report.val_accuracy)
        except PrunedError:
            study.tell(trial, state=TrialState.PRUNED)
        except UserError as error:
            record_failure(run_dir, error, overrides, str(self.extra_dir.resolve()) if self.extra_dir else None)
            study.tell(trial, state=TrialState.FAIL)

    def compose(self, overrides: list[str]) -> DictConfig:
        """The configuration of a trial; each value was checked, but not each with each."""
        try:
            return compose_config(overrides, self.extra_dir)
        except COMPOSITION_ERRORS as error:
            raise UserError(explain(overrides, self.extra_dir, error)) from error


@contextmanager
def _logged(run_dir: Path) -> Iterator[None]:
    """Write run.log, as Hydra does for the points of a sweep."""
    run_dir.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(run_dir / "run.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(HydraConfig.get().job_logging["formatters"]["plain"]["format"]))
    logger = logging.getLogger("distill_run")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def _reporting_to(trial: "Trial", num_epochs: int) -> Console:
    """A quiet console that reports the student's validation accuracy to a trial, and gives up on its advice.

    After the last epoch nothing is saved by giving up.
    """

    def observe(row: dict[str, Any]) -> None:
        if row["stage"] == "student":
            trial.report(row["val"]["accuracy"], row["epoch"])
            if row["epoch"] < num_epochs and trial.should_prune():
                raise PrunedError

    console = Console(quiet=True)
    console.observers.append(observe)
    return console
