"""What trainings that go on together have in common, once in memory: batches, the teacher, and its outputs."""

import dataclasses
from collections.abc import Sequence

from distill_run.data.shared_batches import SharedBatches
from distill_run.engine.loop import Trainer
from distill_run.engine.together import SharedGuide
from distill_run.fingerprints import fingerprint_of
from distill_run.stages.trained import Trained
from distill_run.stages.training import Training
from distill_run.stages.wanted import Wanted


def share_batches(several: Sequence[tuple[Trainer, Training]]) -> None:
    """Let trainings that are served the same batches share each."""
    shared: dict[str, SharedBatches] = {}
    for trainer, training in several:
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
