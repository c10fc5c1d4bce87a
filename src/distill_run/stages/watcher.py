"""Who is told what happens in a run: the run directory, the console, the pruner of a search, a tracker."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from distill_run.build import Builder
from distill_run.config.schema import Settings
from distill_run.errors import user_error
from distill_run.listener import Listener
from distill_run.stages.trained import Trained


@dataclass(frozen=True)
class RunFacts:
    """A run that is about to begin: its directory, its complete settings, and the content of its environment.json.

    A watcher may `warn` of something: the console and the report say it.
    """

    run_dir: Path
    settings: Settings
    environment: Mapping[str, Any]
    warn: Callable[[str], None]


@dataclass(frozen=True)
class StageFacts:
    """A training that is about to begin: its name, its fingerprint, the program that computes it, its length.

    `is_search` marks the short trainings of a learning-rate search: only their figures are kept. `history` holds the
    lines of metrics.jsonl of the epochs that were trained before an interruption.
    """

    name: str
    fingerprint: str
    program: str
    num_epochs: int
    num_steps: int
    is_search: bool
    history: tuple[dict[str, Any], ...] = ()

    def point(self, state: dict[str, Any]) -> dict[str, Any]:
        """What a run keeps in order to go on with the training from a state."""
        return {"stage": self.name, "fingerprint": self.fingerprint, "program": self.program, "trainer": state}


class Watcher(Listener):
    """Is told what happens. It does nothing: a watcher defines the methods that it cares for.

    No method returns anything, and what a watcher does cannot change a number: it must not change what it is given.
    `package` is a Python package that it imports later: where that is missing, the run is refused at its beginning.
    """

    package: ClassVar[str | None] = None

    def warned(self, text: str) -> None:
        """A line that nobody should overlook."""

    def run_begun(self, run: RunFacts) -> None:
        """Before the first training; everything has been checked."""

    def stage_begun(self, stage: StageFacts) -> None:
        """Before the first step of a training, or the first one after a resume.

        Also before each short training of a learning-rate search, which only `training_ended` ends.
        """

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """After each optimizer step, numbered from 1; reading the loss costs a synchronisation of the device."""

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """After each epoch, with its line of metrics.jsonl."""

    def state_saved(self, state: dict[str, Any]) -> None:
        """Where the training in progress could go on from: after each epoch, now and then, where it is cut short.

        Where several train at once, it is that of the first, and `beside` in it holds the points of the others.
        """

    def training_ended(self) -> None:
        """After the last step of a training, however it ended; a display can close."""

    def stage_ended(self, trained: Trained) -> None:
        """A network of a stage is there: trained, reused or loaded. Of several teachers, each is told."""

    def run_ended(self, error: BaseException | None) -> None:
        """At the very end, however it came; None where the run is completed."""


def build_watchers(nodes: Mapping[str, Any], builder: Builder) -> list[Watcher]:
    """The watchers that the nodes describe, by their keys in the settings."""
    return [builder.build(node, key) for key, node in nodes.items()]


def check_watcher(key: str, node: Mapping[str, Any], builder: Builder) -> None:
    """Raise UserError unless the node names a class of watchers that takes its arguments; nothing is built.

    Also where the package that it needs is not installed; the package is not loaded.
    """
    target = builder.bind(node, key)
    if not (isinstance(target, type) and issubclass(target, Watcher)):
        what = f"{key}._target_={node['_target_']} is not a watcher"
        raise user_error(what, "derive the class from distill_run.stages.watcher.Watcher")
    if target.package is not None and importlib.util.find_spec(target.package) is None:
        what = f"{key} needs the package {target.package}, which is not installed"
        raise user_error(what, f"write pip install {target.package}")


class Watchers(Watcher):
    """Tells each of several watchers, in their order."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = tuple(watchers)

    def noted(self, text: str) -> None:
        """See Listener."""
        for watcher in self.watchers:
            watcher.noted(text)

    def worked(self, work: str, done: int, total: int) -> None:
        """See Listener."""
        for watcher in self.watchers:
            watcher.worked(work, done, total)

    def warned(self, text: str) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.warned(text)

    def run_begun(self, run: RunFacts) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.run_begun(run)

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.stage_begun(stage)

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.stepped(epoch, step, num_images, loss)

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.epoch_ended(row)

    def state_saved(self, state: dict[str, Any]) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.state_saved(state)

    def training_ended(self) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.training_ended()

    def stage_ended(self, trained: Trained) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.stage_ended(trained)

    def run_ended(self, error: BaseException | None) -> None:
        """See Watcher."""
        for watcher in self.watchers:
            watcher.run_ended(error)
