"""Shows the progress of a sweep by reading its run directories again and again: the runs may be in any process."""

import _thread
import json
import shlex
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distill_run.console.console import Console
from distill_run.console.displays import HEARTBEAT_SECONDS, SweepDisplay, show_sweep
from distill_run.files import RunFiles
from distill_run.record.command import read_command
from distill_run.record.status import RunStatus, Status, read_status
from distill_run.report.run_report import RunReport, read_report
from distill_run.sweeps.places import point_folders
from distill_run.units import change, duration, percent, shown_path

POLL_SECONDS = 0.3
MOST_SHOWN = 4  # points at work, one beside the other
MOST_SHARE = 0.005  # of a core that may go into looking: a look at thousands of points takes long


@dataclass
class SweepProgress:
    """What was shown of a sweep so far; `num_points` is None where only a sweeper of the user's knows it.

    It decides nothing: how the points ended is read from their files when all have ended.
    """

    directory: Path
    num_points: int | None
    swept_keys: Sequence[str]
    console: Console
    ended: dict[str, Status] = field(default_factory=dict)  # by the numbers of the points
    earlier: dict[str, int] = field(default_factory=dict)  # when an earlier, not completed point ended
    warned: set[str] = field(default_factory=set)
    heartbeat: float = field(default_factory=time.monotonic)
    begun: dict[str, float] = field(default_factory=dict)  # when each point was first seen at work
    took: list[float] = field(default_factory=list)  # seconds of each point that has ended
    num_at_once: int = 1  # the most points that were seen at work together

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what happens in the directory during the block, in a thread of its own."""
        finished = threading.Event()
        with show_sweep(self.console) as display:
            display.line(self._beginning())
            thread = threading.Thread(target=self._watch, args=(display, finished), daemon=True)
            thread.start()
            try:
                yield
            finally:
                finished.set()
                thread.join()

    def _beginning(self) -> str:
        for number, folder in point_folders(self.directory).items():
            status = _status_of(folder)
            if status is not None and status.status == "completed":
                self.ended[number] = status.status
            elif status is not None:
                self.earlier[number] = _changed(folder)
        earlier = f", {len(self.ended)} of them completed earlier" if self.ended else ""
        count = "" if self.num_points is None else f"{self.num_points} point{'' if self.num_points == 1 else 's'} "
        return f"sweep: {count}in {shown_path(self.directory)}{earlier}"

    def _watch(self, display: SweepDisplay, finished: threading.Event) -> None:
        pause = POLL_SECONDS
        try:
            while not finished.wait(pause):
                begun = time.thread_time()
                self.look(display)
                pause = max(POLL_SECONDS, (time.thread_time() - begun) / MOST_SHARE)
            self.look(display)
        except KeyboardInterrupt:  # nobody reads the display any more: the points end as after Ctrl-C
            _thread.interrupt_main()

    def look(self, display: SweepDisplay) -> None:
        """Tell which points have ended since the last look, and show what the others do."""
        now = time.monotonic()
        running: dict[str, str] = {}
        for number, folder in point_folders(self.directory).items():
            status = None if number in self.ended else _status_of(folder)
            if status is None or self.earlier.get(number) == _changed(folder):
                continue
            if status.has_ended:
                self.ended[number] = status.status
                if number in self.begun:
                    self.took.append(now - self.begun[number])
                self._tell_end(number, folder, status, display)
            elif status.status == "running":
                self.begun.setdefault(number, now)
                running[number] = f"{number}: {last_epoch(folder)}"
        self.num_at_once = max(self.num_at_once, len(running))
        shown = list(running.values())
        if len(shown) > MOST_SHOWN:
            shown = [f"{len(shown)} points at work, such as {shown[0]}"]
        state = "   ".join([*self._left([now - self.begun[number] for number in running]), *shown])
        display.update(len(self.ended), self.num_points, state)
        if not self.console.is_live and now - self.heartbeat > HEARTBEAT_SECONDS:
            total = "" if self.num_points is None else f" of {self.num_points}"
            display.line(f"     {len(self.ended)}{total} points ended   {state}".rstrip())
            self.heartbeat = now

    def _left(self, running_seconds: Sequence[float]) -> list[str]:
        """How long the rest of the sweep will take, in words; nothing where no point has ended or none is left.

        The first points take longer than the others, because they train the teacher: the median leaves them out.
        """
        if self.num_points is None or not self.took or len(self.ended) >= self.num_points:
            return []
        each = statistics.median_low(self.took)
        num_waiting = max(self.num_points - len(self.ended) - len(running_seconds), 0)
        seconds = each * num_waiting + sum(max(each - spent, 0.0) for spent in running_seconds)
        return [f"about {duration(seconds / self.num_at_once)} left"]

    def _tell_end(self, number: str, folder: Path, status: RunStatus, display: SweepDisplay) -> None:
        head = f"{number:>4} {self.values_of(folder)}"
        if status.status == "failed":
            display.line(f"{head}   failed: {(status.error or 'it does not say why').splitlines()[0]}")
            return
        if status.status == "pruned":
            display.line(f"{head}   given up after {last_epoch(folder)}")
            return
        try:
            report = read_report(folder)
        except ValueError as damage:
            display.line(f"{head}   {damage}")
            return
        display.line(f"{head}   {_figures(report)}")
        for warning in report.warnings:
            if warning not in self.warned:
                self.warned.add(warning)
                display.line(f"     warning: {warning}")

    def values_of(self, folder: Path) -> str:
        """The swept values of a point, as one types them; none where its command cannot be read."""
        try:
            words = shlex.split(read_command(folder))
        except ValueError:
            return ""
        return " ".join(word for word in words if word.partition("=")[0] in self.swept_keys)


def _status_of(folder: Path) -> RunStatus | None:
    """The status of a point; None where there is none, or none that can be read."""
    try:
        return read_status(folder)
    except ValueError:
        return None


def _changed(folder: Path) -> int:
    """When the status of a point was written; 0 where somebody has removed it."""
    try:
        return RunFiles(folder).status.stat().st_mtime_ns
    except OSError:
        return 0


def _figures(report: RunReport) -> str:
    text = f"val {percent(report.val_accuracy)}  test {percent(report.student_accuracy)}"
    if report.change is not None:
        text += f" ({change(report.change)})"
    return f"{text}  {duration(report.student.train_seconds)}"


def last_epoch(folder: Path) -> str:
    """The last epoch that a point has completed."""
    try:
        row = json.loads(RunFiles(folder).metrics.read_text(encoding="utf-8").splitlines()[-1])
        return f"{row['stage']} epoch {row['epoch']}, val {row['val']['accuracy']:.2%}"
    except (OSError, ValueError, LookupError, TypeError):  # not there yet, empty or damaged
        return "preparing"
