"""The watcher that gives up a trial of a search which is not promising."""

from typing import TYPE_CHECKING, Any

from distill_run.engine.interrupt import StopRequest
from distill_run.errors import PrunedError
from distill_run.stages.watcher import StageFacts, Watcher

if TYPE_CHECKING:
    from optuna import Trial


class Pruner(Watcher):
    """Reports the student's validation accuracy to Optuna, and stops the run where Optuna advises it.

    After the last epoch it does not stop the run: that would save nothing.
    """

    def __init__(self, trial: "Trial", stop: StopRequest) -> None:
        self.trial = trial
        self.stop = stop
        self.num_epochs = 0

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        self.num_epochs = stage.num_epochs

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        if row["stage"] != "student":
            return
        self.trial.report(row["val"]["accuracy"], row["epoch"])
        if row["epoch"] < self.num_epochs and self.trial.should_prune():
            self.stop.request(PrunedError())
