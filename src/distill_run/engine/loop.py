"""The one training loop. It knows epochs, steps and checkpoints; it knows no mode, no dataset, no Hydra."""

import math
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from distill_run.data.batches import Batch, Batches
from distill_run.data.source import ImageSet
from distill_run.engine.checks import CHECK_STEPS
from distill_run.engine.evaluate import commonest_share, measure, predict
from distill_run.engine.finite import CALMER
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.learner import Learner
from distill_run.engine.protocols import LoopWatcher
from distill_run.engine.schedules import Schedule
from distill_run.engine.selection import goodness, rank
from distill_run.engine.totals import Totals
from distill_run.errors import DivergedError, Interrupted, Mistake


class Trainer:
    """Trains a network to a small loss, and remembers the epoch that was best on validation, by `select_by`.

    `checkpoint_seconds` is how long a training goes on before its state is saved within an epoch; None: only at the
    end. Everything random is a function of the seeds of `learner` and `batches`, epoch and step: a trainer that is
    built in the same way, and given a saved state by `load_state`, goes on as if it had never stopped.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        schedule: Schedule,
        batches: Batches,
        val: ImageSet,
        select_by: str,
        checkpoint_seconds: float | None = None,
    ) -> None:
        self.learner = learner
        self.schedule = schedule
        self.batches = batches
        self.val = val
        self.select_by = select_by
        self.checkpoint_seconds = checkpoint_seconds
        self.epoch, self.step = 1, 0  # the epoch in progress (from 1) and its next step (from 0)
        self.kept_step = 0  # that of the state which the learner has kept
        self.history: list[dict[str, Any]] = []
        self.selected: dict[str, Any] = {}

    @property
    def num_steps(self) -> int:
        """The optimizer's steps in an epoch; the last may have fewer batches."""
        return math.ceil(self.batches.num_steps / self.learner.recipe.accumulation)

    def fit(self, watcher: LoopWatcher, stop: StopRequest) -> None:
        """Train to the end; the watcher is given the state now and then, and where the training is cut short.

        Raises DivergedError, with the weights before the optimizer's step, for a loss, teacher's logits or gradients
        that are not finite; and what `stop` was requested with, after a step or an epoch.
        """
        with stop.polled():
            for step in self.steps(watcher, stop):
                step.take()

    def steps(self, watcher: LoopWatcher, stop: StopRequest) -> Generator["Step", None, None]:
        """The same with a pause before each step, which is for others to take: so several trainings go on together."""
        while self.epoch <= self.learner.recipe.epochs and not self._is_out_of_patience():
            yield from self._train_epoch(watcher, stop)
            row = self._finish_epoch(self._validate(watcher, stop))
            watcher.state_saved(self.state())
            watcher.epoch_ended(row)
            if self._agreed(stop)[0]:
                raise stop.error

    def _train_epoch(self, watcher: LoopWatcher, stop: StopRequest) -> Iterator["Step"]:
        """The steps of the epoch in progress that are left."""
        self.learner.begin()
        saved = time.monotonic()
        batches = self._batches()
        self._keep()
        while self.step < self.num_steps:
            yield Step(self, batches, watcher)
            is_last, is_saved = self._agreed(stop, time.monotonic() - saved)
            is_due = self.step % CHECK_STEPS == 0
            if (is_due or is_last or is_saved or self.step == self.num_steps) and self.learner.went_back():
                self.step = self.kept_step
                batches = self._batches()
            elif is_due:
                self._keep()
            if is_last or is_saved:
                watcher.state_saved(self.state())
                saved = time.monotonic()
            if is_last:
                raise stop.error

    def _batches(self) -> Iterator[Batch]:
        """Those of the epoch in progress, from the next step on."""
        return self.batches.epoch(self.epoch, first_step=self.step * self.learner.recipe.accumulation)

    def _keep(self) -> None:
        self.learner.keep()
        self.kept_step = self.step

    def _agreed(self, stop: StopRequest, seconds: float = 0.0) -> tuple[bool, bool]:
        """Whether the training is to stop, and whether its state is to be saved, `seconds` after it was saved.

        Signals reach several processes at different moments, and so does the time: they stop after the same step.
        """
        is_due = self.checkpoint_seconds is not None and seconds >= self.checkpoint_seconds
        is_last, is_saved = self.learner.processes.any_of(stop.requested, is_due)
        if is_last and not stop.requested:
            stop.request(Interrupted())
        return is_last, is_saved

    def _train_step(self, batches: Iterator[Batch], watcher: LoopWatcher) -> None:
        """A step of the optimizer, on the mean gradient of the next images."""
        num_batches, num_images = self.begin_step()
        self.end_step(self.learner.step(batches, num_batches, num_images), num_images, watcher)

    def begin_step(self) -> tuple[int, int]:
        """Set the learning rates of the next step of the optimizer; returns how many batches and images it is of."""
        self.learner.scale_rates(self.schedule.factor(self.epoch - 1 + self.step / self.num_steps))
        accumulation, batch_size = self.learner.recipe.accumulation, self.batches.batch_size
        first = self.step * accumulation
        last = min(first + accumulation, self.batches.num_steps)
        return last - first, min(last * batch_size, self.batches.num_samples) - first * batch_size

    def end_step(self, loss: Tensor, num_images: int, watcher: LoopWatcher) -> None:
        """Count a step that the learner has taken."""
        self.step += 1
        watcher.stepped(self.epoch, self.step, num_images, loss)

    def _validate(self, watcher: LoopWatcher, stop: StopRequest) -> Tensor:
        """The validation logits (N, K) after the last step; a signal need not wait for all of them.

        Several processes go on from the same logits: what follows from them may end the training.
        """
        network, processes = self.learner.evaluated, self.learner.processes
        try:
            with stop.at_once():
                processes.copy_from_first(list(network.buffers()))
                return predict(network, self.val, processes)
        except KeyboardInterrupt:
            watcher.state_saved(self.state())
            raise

    def _finish_epoch(self, val_logits: Tensor) -> dict[str, Any]:
        totals, stage = self.learner.totals, self.learner.stage
        train, val = totals.means(), measure(val_logits, self.val.targets.cpu())
        for name, value in {"training": train["loss"], "validation": val["nll"]}.items():
            if not math.isfinite(value):
                what = f"the {stage}'s {name} loss is not finite after epoch {self.epoch}"
                raise DivergedError([Mistake(what, CALMER)])
        self.schedule.observe(goodness(val, self.select_by))
        row = {
            "stage": stage,
            "epoch": self.epoch,
            "train": train,
            "val": val,
            "answers": commonest_share(val_logits),
            "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
            **totals.timing(),
        }
        self.history.append(row)
        if not self.selected or rank(val, self.select_by) > rank(self.selected["val"], self.select_by):
            self.selected = {"epoch": self.epoch, "val": val, "weights": self.learner.weights()}
        self.epoch, self.step, self.learner.totals = self.epoch + 1, 0, Totals()
        return row

    def state(self) -> dict[str, Any]:
        """Everything that a resume needs, as plain containers and tensors."""
        return {
            **self.learner.state(),
            "epoch": self.epoch,
            "step": self.step,
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "selected": self.selected,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.learner.load_state(state)
        self.epoch, self.step = state["epoch"], state["step"]
        self.schedule.load_state_dict(state["schedule"])
        self.history = state["history"]
        self.selected = state["selected"]

    def _is_out_of_patience(self) -> bool:
        patience = self.learner.recipe.patience
        return bool(patience and self.selected and self.epoch - 1 - self.selected["epoch"] >= patience)


class Step(NamedTuple):
    """The next step of a trainer, on the next of `batches`."""

    trainer: Trainer
    batches: Iterator[Batch]
    watcher: LoopWatcher

    @property
    def place(self) -> tuple[int, int]:
        """Epoch and number of the step, by which steps of several trainings are in order."""
        return self.trainer.epoch, self.trainer.step

    def take(self) -> None:
        """Change the weights; raises DivergedError as Trainer.fit does."""
        self.trainer._train_step(self.batches, self.watcher)
