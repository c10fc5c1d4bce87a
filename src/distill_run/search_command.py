"""The command `distill-search`: values between grid points, chosen by Optuna, judged by validation accuracy.

    distill-search 'mode.temperature=interval(1,20)' 'mode.alpha=interval(0,1)' --trials 30

A space is written in Hydra's words: `a,b,c` or choice(a,b,c), range(1,9), interval(0,1), int(interval(1,9)) and
tag(log,interval(0.001,0.1)). All other overrides are those of distill-run. Each trial is a run in a directory of its
own; one that is worse than the median of the others after as many epochs is given up. The study is kept in study.db,
and the same command, typed again after an interruption, goes on with it.
"""

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from distill_run.arguments import Parser
from distill_run.config import command_line, compose_config, offer_roles, register
from distill_run.console import Console
from distill_run.errors import PrunedError, UserError, tell, user_error
from distill_run.explain import parse, text_of
from distill_run.preflight import preflight
from distill_run.report.sweep_pages import write_sweep_report
from distill_run.search_space import Space, read_space
from distill_run.sweep_progress import SweepProgress
from distill_run.sweep_request import Request, dated_directory, named_directory, record_failure
from distill_run.units import shown_path

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY = "study.db"
INTERRUPTED = 130
STARTUP_TRIALS = 5  # that are run to their end before any is given up
WARMUP_EPOCHS = 1  # after which none is given up yet


def main() -> NoReturn:
    """Run the command line in sys.argv; exits as distill-run does."""
    register()
    try:
        _search(_arguments().parse_intermixed_args())
    except UserError as error:
        tell(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _arguments() -> Parser:
    parser = Parser(prog="distill-search", description="Search values of any keys with Optuna.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=SPACE", help="as in mode.alpha=interval(0,1)")
    parser.add_argument("--trials", type=int, default=20, help="runs in all (20)")
    parser.add_argument("--search-seed", type=int, default=0, help="of the values that are tried (0)")
    parser.add_argument("--search-dir", type=Path, help="where it all goes; by default outputs/searches/DATE/TIME")
    parser.add_argument("--config-dir", type=Path, help="a folder of your own models, objectives and datasets")
    return parser


def _search(arguments: Any) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise user_error("distill-search needs Optuna", "write pip install 'distill-run[search]'")
    extra_dir: Path | None = arguments.config_dir
    if extra_dir is not None:
        offer_roles(extra_dir)
    parsed = parse(arguments.overrides)
    spaces = {override.key_or_group: read_space(override) for override in parsed if override.is_sweep_override()}
    if not spaces:
        raise user_error("there is nothing to search", "give a space, as in 'mode.temperature=interval(1,20)'")
    fixed = [text_of(override) for override in parsed if not override.is_sweep_override()]
    ends = [f"{key}={','.join(space.ends)}" for key, space in spaces.items()]
    settings = preflight([*fixed, *ends], extra_dir, multirun=True)
    own_dir = str(extra_dir) if extra_dir else None
    words = [*arguments.overrides, "--trials", str(arguments.trials), "--search-seed", str(arguments.search_seed)]
    command = command_line(words, own_dir).replace("distill-run", "distill-search", 1)
    request = Request.of(command, settings, extra_dir)
    new = arguments.search_dir or Path(f"{datetime.now():outputs/searches/%Y-%m-%d/%H-%M-%S-%f}")
    with (named_directory if arguments.search_dir else dated_directory)(new, request) as folder:
        Search(folder, arguments.trials, arguments.search_seed, spaces, fixed, extra_dir).run(command)


@dataclass
class Search:
    """The trials in `folder`, `num_trials` in all, over `spaces`; `fixed` are the overrides that all of them share."""

    folder: Path
    num_trials: int
    seed: int
    spaces: dict[str, Space]
    fixed: list[str]
    extra_dir: Path | None

    def run(self, command: str) -> None:
        """Run the trials that are left, tell how they go, and write the report, however it ends."""
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
                console.settings(write_sweep_report([self.folder], self.folder), shown_path(self.folder))

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
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS),
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=TrialState.FAIL)
            shutil.rmtree(self.folder / str(trial.number), ignore_errors=True)
        # A sampler draws the same numbers for the same seed: one that goes on needs another.
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
        return study

    def num_ended(self, study: "Study") -> int:
        """How many trials have an outcome, failures included; those that were killed have no folder any more."""
        return sum(trial.state.is_finished() and (self.folder / str(trial.number)).is_dir() for trial in study.trials)

    def run_trial(self, study: "Study") -> None:
        """One run at values that the study asks for, whose outcome it is told."""
        from optuna.trial import TrialState

        from distill_run.run import run  # torch from here on

        trial = study.ask({key: space.distribution() for key, space in self.spaces.items()})
        point = [f"{key}={space.shown(trial.params[key])}" for key, space in self.spaces.items()]
        run_dir = self.folder / str(trial.number)
        config = compose_config([*self.fixed, *point], self.extra_dir)
        try:
            study.tell(trial, run(config, run_dir, _reporting_to(trial)).val_accuracy)
        except PrunedError:
            study.tell(trial, state=TrialState.PRUNED)
        except UserError as error:
            record_failure(run_dir, error, [*self.fixed, *point], config.code_dir)
            study.tell(trial, state=TrialState.FAIL)


def _reporting_to(trial: "Trial") -> Console:
    """A quiet console that reports the student's validation accuracy to a trial, and gives up on its advice."""

    def observe(row: dict[str, Any]) -> None:
        if row["stage"] == "student":
            trial.report(row["val"]["accuracy"], row["epoch"])
            if trial.should_prune():
                raise PrunedError

    console = Console(quiet=True)
    console.observers.append(observe)
    return console
