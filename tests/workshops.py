"""A run taken apart: its workshop and its networks, for tests of single stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.engine.protocols import Guide
from distill_run.stages.lineup import Lineup, make_lineup, obtain_teacher
from distill_run.stages.prepare import open_workshop
from distill_run.stages.student import guided
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop, make_trainer


@dataclass(frozen=True)
class Opened:
    """A run whose networks are built, and of which nothing is trained yet."""

    settings: Settings
    workshop: Workshop
    lineup: Lineup

    def teacher(self) -> Trained:
        """The trained teacher, from the store where it is there."""
        return obtain_teacher(self.lineup, self.workshop)

    def student(self, teacher: Trained | None = None) -> tuple[Trainer, Guide | None]:
        """A trainer of the student at its first step, and what gives it the teacher's outputs."""
        ready = guided(self.lineup.student, teacher or self.teacher(), self.workshop)
        return make_trainer(ready, self.workshop), ready.guide


def open_settings(
    settings: Settings, folder: Path, feeds: Feeds | None = None, watcher: Watcher | None = None
) -> Opened:
    """Open the run of these settings in folder/run."""
    workshop, complete = open_workshop(
        settings,
        folder / "run",
        folder / "run" / "last.pt",
        "",
        watcher or Watcher(),
        StopRequest(),
        feeds or Feeds(),
    )
    return Opened(complete, workshop, make_lineup(complete, workshop))


def open_run(folder: Path, overrides: Sequence[str], watcher: Watcher | None = None) -> Opened:
    """Open the run of a command line, with its store in folder/store."""
    return open_settings(compose_config([f"store_dir={folder / 'store'}", *overrides]), folder, watcher=watcher)
