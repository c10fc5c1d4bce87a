"""Several trainings of one run at once, told to the run's watchers, who know one training at a time."""

from collections.abc import Callable, Sequence
from typing import Any

from distill_run.engine.loop import Trainer
from distill_run.stages.watcher import StageFacts, Watcher


class Beside(Watcher):
    """Stands for a run's watcher in a training beside others of that run, and tells of it later, when they have ended.

    Words for the user are passed on at once. `save` is called where the training would save its state.
    """

    def __init__(self, watcher: Watcher, save: Callable[[], None]) -> None:
        self.watcher, self.save = watcher, save
        self.stage: StageFacts | None = None
        self.rows: list[dict[str, Any]] = []

    def noted(self, text: str) -> None:
        """See Listener."""
        self.watcher.noted(text)

    def worked(self, work: str, done: int, total: int) -> None:
        """See Listener."""
        self.watcher.worked(work, done, total)

    def warned(self, text: str) -> None:
        """See Watcher."""
        self.watcher.warned(text)

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        self.stage = stage

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        self.rows.append(row)

    def state_saved(self, state: dict[str, Any]) -> None:  # noqa: ARG002 - the states of all are saved together
        """See Watcher."""
        self.save()

    def tell(self) -> None:
        """Tell what was kept."""
        if self.stage is None:
            return
        self.watcher.stage_begun(self.stage)
        for row in self.rows:
            self.watcher.epoch_ended(row)
        self.watcher.training_ended()


class First(Beside):
    """The same for the first of them, which is told as it goes on: nothing is left to tell."""

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        self.watcher.stage_begun(stage)

    def stepped(self, *step: Any) -> None:
        """See Watcher."""
        self.watcher.stepped(*step)

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        self.watcher.epoch_ended(row)

    def training_ended(self) -> None:
        """See Watcher."""
        self.watcher.training_ended()


def beside(watcher: Watcher, trainers: Sequence[Trainer]) -> list[Watcher]:
    """A watcher for each of the trainers of one run, in whose place the run's watcher stands for one alone.

    What a resume needs is saved as the state of the first, with those of the others `beside` it.
    """
    if len(trainers) == 1:
        return [watcher]

    def save() -> None:
        others = [
            each.stage.point(trainer.state())
            for each, trainer in zip(watchers[1:], trainers[1:], strict=True)
            if each.stage is not None
        ]
        watcher.state_saved({**trainers[0].state(), "beside": others})

    watchers: list[Beside] = [First(watcher, save), *(Beside(watcher, save) for _ in trainers[1:])]
    watcher.noted(f"{', '.join(trainer.learner.stage for trainer in trainers)} train together; the first is shown")
    return list(watchers)
