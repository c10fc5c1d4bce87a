"""A search: Optuna chooses the values of each trial, and is told how good they are on validation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_run.errors import PrunedError, first_line, user_error
from distill_run.sweeps.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STUDY = "study.db"
STARTUP_TRIALS = 5  # the first trials are run to their end: there is nothing to compare them with
WARMUP_EPOCHS = 1  # in these epochs no trial is given up
FOLDER = "folder"  # what Optuna keeps the number of a trial's folder under

# Runs a trial with these overrides in this folder: RunReport.val_goodness, None for a failure; raises PrunedError.
RunTrial = Callable[[list[str], Path, "Trial"], float | None]


@dataclass(frozen=True)
class Search:
    """The trials in `folder`, `num_trials` in all, over `spaces`: one for each key; `seed` is that of the sampler."""

    folder: Path
    num_trials: int
    seed: int
    spaces: dict[str, Space]

    def open_study(self) -> "Study":
        """The study in the folder's sqlite file; trials that a killed process was running are queued again."""
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        place = self.folder / STUDY
        try:
            study = optuna.create_study(
                storage=f"sqlite:///{place}",
                study_name="search",
                direction="maximize",
                load_if_exists=True,
                # n_warmup_steps is the first step at which Optuna may give up a trial; our steps are epochs, from 1 on.
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS + 1),
            )
        except Exception as error:  # of a file that is no study, SQLite, SQLAlchemy and Optuna raise their own
            raise user_error(
                f"{place} cannot be read: {first_line(error)}", "name another folder, as in --search-dir DIR"
            ) from error
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            self._queue_again(study, trial)
        return study

    def _queue_again(self, study: "Study", trial: "FrozenTrial") -> None:
        """Let a trial that a killed process was running go on in its folder, with its values."""
        from optuna.trial import TrialState

        study.tell(trial.number, state=TrialState.FAIL)
        has_all = trial.params.keys() == self.spaces.keys()  # else it was killed while it drew them
        study.enqueue_trial(trial.params if has_all else {}, user_attrs={FOLDER: _number_of(trial)})

    def run_trials(self, study: "Study", run_trial: RunTrial) -> None:
        """Run the trials that are left."""
        while self.num_ended(study) < self.num_trials:
            self.run_one(study, run_trial)

    def num_ended(self, study: "Study") -> int:
        """The number of trials with an outcome, failures included; of a trial that went on, the last attempt counts.

        A version before 0.7 removed the folder of a trial that was killed.
        """
        attempts = {_number_of(trial): trial.state for trial in study.trials}
        ended = (number for number, state in attempts.items() if state.is_finished())
        return sum((self.folder / str(number)).is_dir() for number in ended)

    def run_one(self, study: "Study", run_trial: RunTrial) -> None:
        """Run one trial with values that the study asks for, and tell the study how it ended."""
        import numpy as np
        import optuna
        from optuna.trial import TrialState

        number = max((_number_of(trial) for trial in study.trials), default=-1)
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            number += 1
            study.enqueue_trial({}, user_attrs={FOLDER: number})
        # What a trial is given depends on its number and the trials before it, not on interruptions.
        (seed,) = np.random.SeedSequence([self.seed, number]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        trial = study.ask({key: space.distribution() for key, space in self.spaces.items()})
        overrides = [f"{key}={space.shown(trial.params[key])}" for key, space in self.spaces.items()]
        try:
            goodness = run_trial(overrides, self.folder / str(number), trial)
        except PrunedError:
            study.tell(trial, state=TrialState.PRUNED)
            return
        study.tell(trial, goodness, None if goodness is not None else TrialState.FAIL)


def _number_of(trial: "FrozenTrial") -> int:
    """The number of a trial's folder, which it shares with its attempts that were killed."""
    number: int = trial.user_attrs.get(FOLDER, trial.number)  # before version 0.7, trials had no such attribute
    return number
