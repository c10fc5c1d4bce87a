"""The console as a watcher: what a person is told while a run goes on."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_run.config.schema import Settings
from distill_run.console.console import Console
from distill_run.console.displays import TrainingDisplay, WorkDisplay, show_training
from distill_run.errors import DivergedError
from distill_run.files import RunFiles
from distill_run.record.command import resume_command
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import RunFacts, StageFacts, Watcher
from distill_run.units import rounded

SHOWN_HASH = 12


class ConsoleWatcher(Watcher):
    """Tells on a console how a run goes: each training's display, where each network comes from, how it ends."""

    def __init__(self, console: Console, run_dir: Path) -> None:
        self.console = console
        self.files = RunFiles(run_dir)
        self._open = ExitStack()  # of the display in progress
        self._display: TrainingDisplay | None = None
        self._work = WorkDisplay(console)
        self._command = ""
        self._settings: Settings | None = None

    def noted(self, text: str) -> None:
        """See Listener."""
        self.console.note(text)

    def warned(self, text: str) -> None:
        """See Watcher."""
        self.console.warn(text)

    def worked(self, work: str, done: int, total: int) -> None:
        """See Listener."""
        self._work.worked(work, done, total)

    def run_begun(self, run: RunFacts) -> None:
        """See Watcher."""
        self._command = run.environment["command"]
        self._settings = run.settings

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        shown = show_training(self.console, stage.name, stage.num_epochs, stage.num_steps)
        self._display = self._work.training = self._open.enter_context(shown)

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """See Watcher."""
        if self._display is not None:
            self._display.stepped(epoch, step, num_images, loss)

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        if self._display is not None:
            self._display.epoch_ended(row)

    def training_ended(self) -> None:
        """See Watcher."""
        self._open.close()
        self._display = self._work.training = None

    def stage_ended(self, trained: Trained) -> None:
        """See Watcher."""
        head = f"{trained.stage}: {trained.name} {trained.fingerprint[:SHOWN_HASH]} {trained.origin_text}"
        kind = trained.stage.split()[0]
        if kind == "baseline" and trained.reused:
            self.console.note(head)
        elif kind in ("teacher", "assistant"):
            accuracy = trained.selected.val["accuracy"]
            self.console.note(f"{head}, validation accuracy {accuracy:.2%}{_normalised(trained)}")

    def run_ended(self, error: BaseException | None) -> None:
        """See Watcher."""
        if isinstance(error, KeyboardInterrupt):
            self.console.note(f"interrupted; to go on: {self._way_on()}")
        elif isinstance(error, DivergedError):
            self.console.note(f"what was saved before is kept; to replay it: {self._way_on()}")

    def _way_on(self) -> str:
        """The command that takes up a run that was cut short."""
        if self.files.last.is_file():
            return resume_command(self.files.run_dir, self._settings)
        return self._command


def _normalised(teacher: Trained) -> str:
    """How a teacher sees images, in words; nothing of an assistant, which sees them as the student does."""
    if not teacher.stage.startswith("teacher"):
        return ""
    network = teacher.own_network
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    return f", sees images as (pixel - {rounded(mean)}) / {rounded(std)}"
