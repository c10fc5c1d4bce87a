"""The live displays of a sweep, of a training and of a long piece of work.

A terminal shows one live line for the training in progress. A file or a pipe gets plain lines, one for each epoch.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn
from rich.status import Status

from distill_run.console.console import Console, escape
from distill_run.listener import Listener
from distill_run.units import duration

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("distill_run")

REFRESH_SECONDS = 0.2
SHOWN_EPOCHS = 10  # of a training
HEARTBEAT_SECONDS = 30.0  # between two lines that say what goes on, where no line can be overwritten
PLAIN_SECONDS = 10  # between two lines of one piece of work in a file or a pipe


class SweepDisplay:
    """The live line of a sweep: a bar for its points, and what the running points do."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console = console
        self.progress = progress
        self.task = progress.add_task("", total=None, state="")

    def line(self, text: str) -> None:
        """Write a line. It is not logged: the log belongs to the point that runs in this process."""
        self.console.rich.print(escape(text))

    def update(self, num_ended: int, num_points: int | None, state: str) -> None:
        """Show how many points have ended, and what the running points do."""
        self.progress.update(self.task, completed=num_ended, total=num_points, state=state)


@contextmanager
def show_sweep(console: Console) -> Iterator[SweepDisplay]:
    """Show the progress of a sweep."""
    columns = [
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} points"),
        TextColumn("{task.fields[state]}"),
    ]
    with Progress(*columns, console=console.rich, transient=True, disable=not console.is_live) as progress:
        yield SweepDisplay(console, progress)


class TrainingDisplay:
    """The live line of one training."""

    def __init__(self, console: Console, progress: Progress, stage: str, num_epochs: int, num_steps: int) -> None:
        self.console = console
        self.progress = progress
        self.stage = stage
        self.num_epochs = num_epochs
        self.num_steps = num_steps
        self.task = progress.add_task("", total=num_epochs * num_steps, stage=stage, epoch=1, figures="")
        self.started = time.perf_counter()
        self.refreshed = self.started
        self.first_done: int | None = None
        self.num_images = 0
        self.val_accuracy = ""
        is_first = not stage.startswith(("baseline ", "student "))  # the second, third, ... are like the first
        self.every = math.ceil(num_epochs / SHOWN_EPOCHS) if is_first else num_epochs
        self.first = 1 if is_first else None  # an epoch that is shown, too
        self.pending: str | None = None
        self.written = self.started

    def stepped(self, epoch: int, step: int, num_images: int, loss: "Tensor") -> None:
        """Show the loss and the speed, a few times a second only: to read the loss is to wait for the device.

        Where no line can be overwritten, a line is written twice a minute, between those of the epochs.
        """
        self.num_images += num_images
        done = (epoch - 1) * self.num_steps + step
        if self.first_done is None:
            self.first_done = done - 1
        now = time.perf_counter()
        pause = REFRESH_SECONDS if self.console.is_live else HEARTBEAT_SECONDS
        if self.console.rich.quiet or now - self.refreshed < pause:
            return
        self.refreshed = now
        rate = self.num_images / (now - self.started)
        figures = f"loss {loss.item():.3f}{self.val_accuracy}  {rate:,.0f} images/s  {self._left(done)} left"
        self.progress.update(self.task, completed=done, epoch=epoch)
        self.show(figures)
        if not self.console.is_live:
            self.console.rich.print(f"{self.stage:<10} epoch {epoch:>3}/{self.num_epochs}  {figures}")

    def show(self, text: str) -> None:
        """Show a text beside the bar."""
        self.progress.update(self.task, figures=escape(text))

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """Note an epoch in the log, and write about ten of them; `row` is the epoch's line of metrics.jsonl."""
        val_accuracy = row["val"]["accuracy"]
        self.progress.update(self.task, completed=row["epoch"] * self.num_steps, epoch=row["epoch"])
        self.val_accuracy = f"  val acc {val_accuracy:.2%}"
        self.refreshed = time.perf_counter()
        line = (
            f"{self.stage:<10} epoch {row['epoch']:>3}/{self.num_epochs}  loss {row['train']['loss']:.3f}  "
            f"val acc {val_accuracy:.2%}  {row['images_per_second']:,.0f} images/s  "
            f"{self._left(row['epoch'] * self.num_steps)} left"
        )
        log.info("%s  lr %.3g  data %.0f%%", line, row["learning_rate"], 100 * row["data_share"])
        self.pending = line
        is_due = row["epoch"] % self.every == 0 or self.refreshed - self.written > HEARTBEAT_SECONDS
        if is_due or row["epoch"] == self.first:
            self.write_pending()

    def write_pending(self) -> None:
        """Write the line of the last epoch, unless it is written already."""
        if self.pending is not None:
            self.console.rich.print(self.pending)
        self.pending, self.written = None, self.refreshed

    def _left(self, done: int) -> str:
        """The time that the rest of this training will take at the speed so far."""
        fresh = done - (self.first_done or 0)
        seconds = (time.perf_counter() - self.started) / max(fresh, 1) * (self.num_epochs * self.num_steps - done)
        return duration(seconds)


@contextmanager
def show_training(console: Console, stage: str, num_epochs: int, num_steps: int) -> Iterator[TrainingDisplay]:
    """Show the progress of one training; `num_steps` is that of an epoch."""
    columns = [
        TextColumn("{task.fields[stage]:<10}"),
        TextColumn("epoch {task.fields[epoch]:>3}/" + str(num_epochs)),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
    ]
    with Progress(
        *columns, console=console.rich, transient=True, disable=not console.is_live, refresh_per_second=5
    ) as progress:
        display = TrainingDisplay(console, progress, stage, num_epochs, num_steps)
        yield display
        display.write_pending()


class WorkDisplay(Listener):
    """Says how far a piece of work is: in a live line, or where there is none in a line every `PLAIN_SECONDS`.

    During a training, whose display is `training`, the live line is that of the training.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.training: TrainingDisplay | None = None
        self.live: Status | None = None
        self.started: float | None = None  # None between two pieces of work
        self.refreshed = 0.0

    def worked(self, work: str, done: int, total: int) -> None:
        """See Listener."""
        now = time.perf_counter()
        if done == total:
            self._close()
        elif self.started is None:
            self.started = self.refreshed = now
        elif now - self.refreshed >= (REFRESH_SECONDS if self.console.is_live else PLAIN_SECONDS):
            self.refreshed = now
            left = (now - self.started) / max(done, 1) * (total - done)
            self._show(f"{work}: {done / total:.0%}, {duration(left)} left")

    def _show(self, text: str) -> None:
        if not self.console.is_live:
            self.console.note(text)
        elif self.training is not None:
            self.training.show(text)
        elif self.live is None:
            self.live = self.console.rich.status(escape(text))
            self.live.start()
        else:
            self.live.update(escape(text))

    def _close(self) -> None:
        if self.live is not None:
            self.live.stop()
        self.live = self.started = None
