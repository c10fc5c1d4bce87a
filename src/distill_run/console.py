"""What a person sees while a run goes on. The only importer of rich.

A terminal gets one live line for the training in progress; anything else gets plain lines, one for each epoch.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from distill_run.errors import show
from distill_run.units import NONE, change, duration, percent, quantity, with_spread

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("distill_run")

REFRESH_SECONDS = 0.2
PLAIN_WIDTH = 400  # columns in a file or a pipe: wide enough for the tables
SHOWN_SETTINGS = 10


class Console:
    """Lines, the live display and the final table, on stdout; all but the display also go to the log.

    A quiet one writes to the log alone: the points of a sweep have one, and the sweep's display speaks for them.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.rich = RichConsole(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        if not self.rich.is_terminal:
            self.rich.width = PLAIN_WIDTH
        self.warnings: list[str] = []
        self.observers: list[Callable[[dict[str, Any]], None]] = []  # called with each epoch's line of metrics.jsonl

    @property
    def is_live(self) -> bool:
        """Whether a line can be written over."""
        return self.rich.is_terminal and not self.rich.quiet

    def note(self, text: str) -> None:
        """A line for the record."""
        log.info(text)
        self.rich.print(escape(text))

    def warn(self, text: str) -> None:
        """A line that nobody should overlook; it also stands in the report."""
        log.warning(text)
        self.warnings.append(text)
        self.rich.print(f"[bold yellow]warning:[/] {escape(text)}")

    @contextmanager
    def training(self, stage: str, epochs: int, num_steps: int) -> Iterator["TrainingDisplay"]:
        """The display of one training."""
        columns = [
            TextColumn("{task.fields[stage]:<9}"),
            TextColumn("epoch {task.fields[epoch]:>3}/" + str(epochs)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
        ]
        with Progress(
            *columns, console=self.rich, transient=True, disable=not self.is_live, refresh_per_second=5
        ) as progress:
            yield TrainingDisplay(self, progress, stage, epochs, num_steps)

    @contextmanager
    def sweep(self) -> Iterator["SweepDisplay"]:
        """The display of a sweep."""
        columns = [
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} points"),
            TextColumn("{task.fields[state]}"),
        ]
        with Progress(*columns, console=self.rich, transient=True, disable=not self.is_live) as progress:
            yield SweepDisplay(self, progress)

    def results(
        self, summary: dict[str, Any], networks: list[tuple[str, dict[str, Any]]], run_dir: str, command: str
    ) -> None:
        """The final table, a row for each of `networks` by stage, the conclusion, and what to do next."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True)
        for heading in ("test acc", "top-5", "nll", "ece", "params", "MACs", "size", "trained in"):
            table.add_column(heading, justify="right", no_wrap=True)
        for stage, network in networks:
            table.add_row(f"{stage} {network['architecture']}", *_cells(network))
        self.rich.print()
        self.rich.print(table)
        self.rich.print()
        for warning in summary["warnings"]:
            if warning not in self.warnings:
                self.warn(warning)
        log.info(summary["conclusion"])
        self.rich.print(f"[bold]{escape(summary['conclusion'])}[/]")
        self.rich.print()
        self.note(f"report   {run_dir}/report.html")
        self.note(f"student  {run_dir}/checkpoints/student.pt")
        self.note(f"repeat   {command}")
        self.note(
            "use it   from distill_run.checkpoint import load_network; "
            f"network = load_network('{run_dir}/checkpoints/student.pt')"
        )

    def settings(self, content: dict[str, Any], folder: str) -> None:
        """The table of a sweep's settings, the conclusion, and what to do next; `content` is that of sweep.json."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in content["keys"]:
            table.add_column(escape(heading))
        for heading in ("runs", "val acc", "test acc", "change"):
            table.add_column(heading, justify="right", no_wrap=True)
        for setting in content["settings"][:SHOWN_SETTINGS]:
            table.add_row(*(escape(show(setting["values"][key])) for key in content["keys"]), *_means(setting))
        self.rich.print()
        self.rich.print(table)
        if (hidden := len(content["settings"]) - SHOWN_SETTINGS) > 0:
            self.rich.print(f"and {hidden} more")
        self.rich.print()
        unfinished = {status: count for status, count in content["counts"].items() if status != "completed" and count}
        if unfinished:
            self.note("without a result: " + ", ".join(f"{count} {status}" for status, count in unfinished.items()))
        log.info(content["conclusion"])
        self.rich.print(f"[bold]{escape(content['conclusion'])}[/]")
        self.rich.print()
        self.note(f"report   {folder}/sweep.html")
        if content["recommendation"] is not None:
            self.note("repeat   " + content["recommendation"]["command"].replace("\n", "\n         "))


class SweepDisplay:
    """A sweep's live line: a bar over its points, and what those that run are doing."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console = console
        self.progress = progress
        self.task = progress.add_task("", total=None, state="")

    def line(self, text: str) -> None:
        """A line that stays. It is not logged: the log is that of whichever point is running in this process."""
        self.console.rich.print(escape(text))

    def update(self, num_ended: int, num_points: int | None, state: str) -> None:
        """Show how many points have ended, and what the others do."""
        self.progress.update(self.task, completed=num_ended, total=num_points, state=state)


class TrainingDisplay:
    """One training's line; a fit.Watcher."""

    def __init__(self, console: Console, progress: Progress, stage: str, epochs: int, num_steps: int) -> None:
        self.console = console
        self.progress = progress
        self.stage = stage
        self.epochs = epochs
        self.num_steps = num_steps
        self.task = progress.add_task("", total=epochs * num_steps, stage=stage, epoch=1, figures="")
        self.started = time.perf_counter()
        self.refreshed = self.started
        self.first_done: int | None = None
        self.num_images = 0
        self.val_accuracy = ""

    def stepped(self, epoch: int, step: int, num_images: int, loss: "Tensor") -> None:
        """See fit.Watcher. The loss is read a few times a second only: each reading waits for the device."""
        self.num_images += num_images
        done = (epoch - 1) * self.num_steps + step
        if self.first_done is None:
            self.first_done = done - 1
        now = time.perf_counter()
        if self.progress.disable or now - self.refreshed < REFRESH_SECONDS:
            return
        self.refreshed = now
        rate = self.num_images / (now - self.started)
        figures = f"loss {loss.item():.3f}{self.val_accuracy}  {rate:,.0f} images/s  {self._left(done)} left"
        self.progress.update(self.task, completed=done, epoch=epoch, figures=figures)

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """See fit.Watcher."""
        val_accuracy = row["val"]["accuracy"]
        self.progress.update(self.task, completed=row["epoch"] * self.num_steps, epoch=row["epoch"])
        self.val_accuracy = f"  val acc {val_accuracy:.2%}"
        line = (
            f"{self.stage:<9} epoch {row['epoch']:>3}/{self.epochs}  loss {row['train']['loss']:.3f}  "
            f"val acc {val_accuracy:.2%}  {row['images_per_second']:,.0f} images/s  "
            f"{self._left(row['epoch'] * self.num_steps)} left"
        )
        log.info("%s  lr %.3g  data %.0f%%", line, row["learning_rate"], 100 * row["data_share"])
        self.console.rich.print(line)
        for observer in self.console.observers:
            observer(row)

    def _left(self, done: int) -> str:
        """The time that the rest of this training will take at the rate so far."""
        fresh = done - (self.first_done or 0)
        seconds = (time.perf_counter() - self.started) / max(fresh, 1) * (self.epochs * self.num_steps - done)
        return duration(seconds)


def _cells(network: dict[str, Any]) -> list[str]:
    test = network["selected"]["test"]
    seconds = "" if network["train_seconds"] == 0 else duration(network["train_seconds"])
    return [
        f"{test['accuracy']:.2%}",
        f"{test['top5_accuracy']:.2%}",
        f"{test['nll']:.3f}",
        f"{test['ece']:.3f}",
        f"{network['params']:,}",
        quantity(network["macs"]),
        quantity(network["bytes"]) + "B",
        seconds + (" (reused)" if network["reused"] and seconds else "") or "elsewhere",
    ]


def _means(setting: dict[str, Any]) -> list[str]:
    val, test, difference = (setting[name] for name in ("val_accuracy", "test_accuracy", "difference"))
    shown = [NONE if found is None else with_spread(percent(found["mean"]), found["sd"]) for found in (val, test)]
    gained = NONE if difference is None else with_spread(change(difference["mean"]), difference["sd"])
    return [f"{setting['replicates']} of {setting['asked']}", *shown, gained]
