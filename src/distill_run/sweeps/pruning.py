"""The watcher that gives up a trial of a search which is not promising."""

from typing import TYPE_CHECKING, Any

from distill_run.engine.interrupt import StopRequest
from distill_run.engine.selection import goodness
from distill_run.errors import PrunedError
from distill_run.stages.watcher import RunFacts, StageFacts, Watcher

if TYPE_CHECKING:
    from optuna import Trial


class Pruner(Watcher):
    """Reports to Optuna how good the student is on validation, and stops the run where Optuna advises it.

    After the last epoch it does not stop the run: that would save nothing.
    """

    def __init__(self, trial: "Trial", stop: StopRequest) -> None:
        self.trial = trial
        self.stop = stop
        self.num_epochs = 0
        self.select_by = ""

    def run_begun(self, run: RunFacts) -> None:
        """See Watcher."""
        self.select_by = run.settings.training.select_by

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        self.num_epochs = stage.num_epochs

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        if row["stage"] != "student":
            return
        self.trial.report(goodness(row["val"], self.select_by), row["epoch"])
        if row["epoch"] < self.num_epochs and self.trial.should_prune():
            self.stop.request(PrunedError())
