"""Baselines and students that train together: those of several runs of one process, or of one run's repeats."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill_run.engine.loop import Step, Trainer
from distill_run.engine.stacked import StackedTaker, measured_faster
from distill_run.engine.together import Take, take_in_turn, train_together
from distill_run.stages.beside import Beside, beside
from distill_run.stages.entry import write_entry
from distill_run.stages.sharing import share_batches
from distill_run.stages.trained import Trained
from distill_run.stages.wanted import Wanted
from distill_run.stages.watcher import Watcher
from distill_run.stretches import in_stretches

Outcome = Trained | BaseException


def usual_way(wanted: Wanted) -> Take:
    """How steps are taken: on a GPU stacked, where that is measured to be faster; elsewhere in turn.

    On a CPU stacked steps took longer, those of twelve cnn_small 1.7 times as long: there, nothing is measured.
    """
    if wanted.workshop.device.settings.kind != "cuda":
        return take_in_turn
    return StackedTaker(measured_faster(wanted.workshop.watcher.noted))


def obtain_together(several: Sequence[Wanted], take: Take) -> list[Outcome]:
    """What comes of each: its network, or what ended its training, which is no concern of the others.

    What is in a store already is not trained again, and what several wait for is trained once: by the first of them.
    """
    first: dict[object, int] = {}
    for number, wanted in enumerate(several):
        key = number if wanted.kind is None else (wanted.workshop.store.root, wanted.kind, wanted.fingerprint)
        first.setdefault(key, number)
    # The locks are taken in the same order everywhere: two processes never wait for each other.
    in_order = sorted(first.values(), key=lambda number: (several[number].kind or "", several[number].fingerprint))
    came: dict[int, Outcome] = {}
    _Obtaining(several, take, came).obtain(in_order, [])
    interruption = next((end for end in came.values() if isinstance(end, KeyboardInterrupt)), None)
    for number, wanted in enumerate(several):
        if number not in came:
            assert wanted.kind is not None
            obtain = partial(wanted.workshop.obtain, wanted.kind, wanted.prepared)
            came[number] = interruption or _outcome(wanted, obtain)
        elif isinstance(trained := came[number], Trained):
            with wanted.within():
                wanted.workshop.watcher.stage_ended(trained)
    return [came[number] for number in range(len(several))]


def _outcome(wanted: Wanted, act: Callable[[], Trained]) -> Outcome:
    """What an act for a training returns or raises."""
    try:
        with wanted.within():
            return act()
    except (Exception, KeyboardInterrupt) as error:
        return error


class _NotTrainedError(Exception):
    """Leaves an entry of the store unmade, whose training has failed."""


@dataclasses.dataclass(frozen=True)
class _Obtaining:
    """Finds out, under the locks of all, what is in no store yet, trains that together, and makes the entries."""

    several: Sequence[Wanted]
    take: Take
    came: dict[int, Outcome]

    def obtain(self, waiting: Sequence[int], missing: Sequence[int]) -> None:
        """Look for those that are `waiting`; then train the `missing`, whose locks are held."""
        if not waiting:
            self._train(sorted(missing))
            return
        number, *rest = waiting
        wanted = self.several[number]
        if wanted.kind is None:
            self.obtain(rest, [*missing, number])
            return

        def make(directory: Path) -> dict[str, Any]:
            self.obtain(rest, [*missing, number])
            trained = self.came[number]
            if not isinstance(trained, Trained):
                raise _NotTrainedError
            return write_entry(trained, wanted.prepared.training, directory)

        try:
            with wanted.within():
                directory, was_there = wanted.workshop.store.obtain(wanted.kind, wanted.fingerprint, make)
        except _NotTrainedError:
            return
        if was_there:
            self.came[number] = wanted.workshop.read(directory, wanted.prepared)
            self.obtain(rest, missing)

    def _train(self, numbers: list[int]) -> None:
        chosen = [self.several[number] for number in numbers]
        outcomes = train_all(chosen, self.take) if len(chosen) > 1 else [_train_alone(wanted) for wanted in chosen]
        self.came.update(zip(numbers, outcomes, strict=True))


def _train_alone(wanted: Wanted) -> Outcome:
    return _outcome(wanted, partial(wanted.workshop.train, wanted.prepared))


def train_all(several: Sequence[Wanted], take: Take) -> list[Outcome]:
    """Train together; what comes of each. One that cannot begin or go on leaves the others alone."""
    outcomes: dict[int, Outcome] = {}
    trainers: dict[int, Trainer] = {}
    for number, wanted in enumerate(several):
        try:
            with wanted.within():
                trainers[number] = wanted.workshop.begin(wanted.prepared)
        except Exception as refusal:
            outcomes[number] = refusal
    begun = {number: several[number] for number in trainers}
    for (number, wanted), error in zip(begun.items(), _train_begun(begun, trainers, take), strict=True):
        outcomes[number] = error or _outcome(
            wanted, partial(wanted.workshop.conclude, trainers[number], wanted.prepared)
        )
    return [outcomes[number] for number in range(len(several))]


def _train_begun(begun: dict[int, Wanted], trainers: dict[int, Trainer], take: Take) -> list[BaseException | None]:
    """Train those that have begun to their ends; what ended each before."""
    if not begun:
        return []
    own_batches = [trainer.batches for trainer in trainers.values()]
    share_batches([(trainers[number], wanted.prepared.training) for number, wanted in begun.items()])
    watchers = _watchers(begun, trainers)
    steps = []
    for number, wanted in begun.items():
        workshop = dataclasses.replace(wanted.workshop, watcher=watchers[number])
        steps.append(in_stretches(workshop.steps(trainers[number], wanted.prepared.training), wanted.within))
    first = next(iter(begun.values()))

    def take_within(now: Sequence[Step]) -> list[BaseException | None]:
        with first.within():  # what the teacher says goes to the log of the first
            return take(now)

    try:
        with first.workshop.stop.polled():
            return train_together(steps, take_within)
    finally:
        for batches in own_batches:
            batches.close()
        for number, watcher in watchers.items():
            if isinstance(watcher, Beside):
                with begun[number].within():
                    watcher.tell()


def _watchers(begun: dict[int, Wanted], trainers: dict[int, Trainer]) -> dict[int, Watcher]:
    """Who is told of each training."""
    runs: dict[int, list[int]] = {}
    for number, wanted in begun.items():
        runs.setdefault(id(wanted.workshop.watcher), []).append(number)
    watchers: dict[int, Watcher] = {}
    for numbers in runs.values():
        told = beside(begun[numbers[0]].workshop.watcher, [trainers[number] for number in numbers])
        watchers.update(zip(numbers, told, strict=True))
    return watchers
