"""The watcher that gives up a trial of a search which is not promising."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from distill_run.engine.interrupt import StopRequest
from distill_run.engine.selection import goodness
from distill_run.errors import PrunedError
from distill_run.stages.watcher import StageFacts, Watcher

if TYPE_CHECKING:
    from optuna import Trial


class Pruner(Watcher):
    """Reports to Optuna how good the student is on validation, and stops the run where Optuna advises it.

    `select_by` is the figure that is reported. After the last epoch it does not stop the run: that would save nothing.
    """

    def __init__(self, trial: "Trial", stop: StopRequest, select_by: str) -> None:
        self.trial = trial
        self.stop = stop
        self.select_by = select_by
        self.num_epochs = 0
        self.num_reported = 0

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher. Of a trial that goes on, Optuna is told the epochs that came before the interruption."""
        self.num_epochs = stage.num_epochs
        self.report(stage.history)

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        self.report([row])

    def report(self, rows: Iterable[dict[str, Any]]) -> None:
        """Tell Optuna of the student's epochs that it does not know, by their lines of metrics.jsonl."""
        for row in rows:
            if row["stage"] != "student" or row["epoch"] <= self.num_reported:
                continue
            self.num_reported = row["epoch"]
            self.trial.report(goodness(row["val"], self.select_by), row["epoch"])
            if row["epoch"] < self.num_epochs and self.trial.should_prune():
                self.stop.request(PrunedError())
