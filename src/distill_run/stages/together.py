"""Baselines and students that train together: those of several runs of one process, or of one run's repeats."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from distill_run.data.shared_batches import SharedBatches
from distill_run.engine.loop import Trainer
from distill_run.engine.stacked import StackedTaker, measured_faster
from distill_run.engine.together import SharedGuide, Take, take_in_turn, train_together
from distill_run.fingerprints import fingerprint_of
from distill_run.stages.beside import Beside, beside
from distill_run.stages.entry import write_entry
from distill_run.stages.trained import Trained
from distill_run.stages.wanted import Wanted
from distill_run.stages.watcher import Watcher
from distill_run.stretches import in_stretches

Outcome = Trained | BaseException


def usual_way(wanted: Wanted) -> Take:
    """How steps are taken: on a GPU stacked, where that is measured to be faster; elsewhere in turn.

    On a CPU a stacked step took 2 to 4 times as long as the same steps in turn: there, nothing is measured.
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
    for number, wanted in enumerate(several):
        if number not in came:
            assert wanted.kind is not None
            came[number] = _outcome(wanted, partial(wanted.workshop.obtain, wanted.kind, wanted.prepared))
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
    """Train together; what comes of each. A run that cannot begin or go on leaves the others alone."""
    outcomes: dict[int, Outcome] = {}
    trainers: dict[int, Trainer] = {}
    for number, wanted in enumerate(several):
        try:
            with wanted.within():
                trainers[number] = wanted.workshop.begin(wanted.prepared)
        except Exception as refusal:
            outcomes[number] = refusal
    own_batches = [trainer.batches for trainer in trainers.values()]
    _share_batches([(trainer, several[number]) for number, trainer in trainers.items()])
    watchers = _watchers({number: several[number].workshop.watcher for number in trainers}, trainers)
    steps = []
    for number, trainer in trainers.items():
        wanted = several[number]
        workshop = dataclasses.replace(wanted.workshop, watcher=watchers[number])
        steps.append(in_stretches(workshop.steps(trainer, wanted.prepared.training), wanted.within))
    try:
        with several[0].workshop.stop.polled():
            errors = train_together(steps, take)
    finally:
        for batches in own_batches:
            batches.close()
    for watcher in watchers.values():
        if isinstance(watcher, Beside):
            watcher.tell()
    for (number, trainer), error in zip(trainers.items(), errors, strict=True):
        conclude = partial(several[number].workshop.conclude, trainer, several[number].prepared)
        outcomes[number] = error or _outcome(several[number], conclude)
    return [outcomes[number] for number in range(len(several))]


def _watchers(own: dict[int, Watcher], trainers: dict[int, Trainer]) -> dict[int, Watcher]:
    """Who is told of each training; `own` are the watchers of their runs."""
    runs: dict[int, list[int]] = {}
    for number, watcher in own.items():
        runs.setdefault(id(watcher), []).append(number)
    watchers: dict[int, Watcher] = {}
    for numbers in runs.values():
        told = beside(own[numbers[0]], [trainers[number] for number in numbers])
        watchers.update(zip(numbers, told, strict=True))
    return watchers


def _share_batches(several: Sequence[tuple[Trainer, Wanted]]) -> None:
    """Let trainings that are served the same batches share each."""
    shared: dict[str, SharedBatches] = {}
    for trainer, wanted in several:
        training = wanted.prepared.training
        if training.trains != "all":
            continue
        accumulation = training.recipe.accumulation
        key = fingerprint_of(
            {
                "data": dataclasses.asdict(training.data),
                "views": dataclasses.asdict(training.views),
                "sampling": training.sampling,
                "unlabelled_share": training.unlabelled_share,
                "seed": training.seed,
                "steps": [training.recipe.batch_size, accumulation],
            }
        )
        trainer.batches = shared.setdefault(key, SharedBatches(trainer.batches, accumulation))


class SharedTeachers:
    """What guides several trainings, once in memory for all that ask the same teacher for the same."""

    def __init__(self) -> None:
        self.guides: dict[str, SharedGuide] = {}
        self.teachers: dict[str, Trained] = {}

    def of(self, wanted: Wanted) -> Wanted:
        """The same training with the guide of the first that asked for it."""
        teacher, prepared = wanted.teacher, wanted.prepared
        if teacher is None or prepared.guide is None:
            return wanted
        _share_memory(teacher, self.teachers.setdefault(teacher.fingerprint, teacher))
        training = prepared.training
        key = fingerprint_of(
            {
                "teacher": teacher.fingerprint,
                "by": prepared.guided_by,
                "points": dict(prepared.assembly.teacher_points),
                "top_k": training.top_k,
                "data": dataclasses.asdict(training.data),
                "views": dataclasses.asdict(training.views),
                "device": dataclasses.asdict(wanted.workshop.device.settings),
                "kept": training.recipe.accumulation,
            }
        )
        guide = self.guides.setdefault(key, SharedGuide(prepared.guide, training.recipe.accumulation))
        return dataclasses.replace(wanted, prepared=dataclasses.replace(prepared, guide=guide))


def _share_memory(teacher: Trained, first: Trained) -> None:
    """Let the weights of a frozen network be those of another that is equal: one copy is in memory."""
    if teacher is first:
        return
    weights = first.network.state_dict(keep_vars=True)
    for name, value in teacher.network.state_dict(keep_vars=True).items():
        value.data = weights[name].data
