"""The student and the assistants: networks that a teacher guides."""

from dataclasses import replace

from distill_run.stages.assembly import Prepared
from distill_run.stages.guides import make_guide
from distill_run.stages.trained import Trained
from distill_run.stages.workshop import Workshop


def obtain_assistants(several: list[Prepared], teacher: Trained, workshop: Workshop) -> list[Trained]:
    """The chain of assistants: the teacher guides the first, each of them guides the next.

    Source: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", 2020, section 3.
    """
    chain: list[Trained] = []
    for prepared in several:
        ready, guided_by = guided(prepared, [teacher, *chain][-1], workshop)
        chain.append(replace(workshop.obtain("assistant", ready), guided_by=guided_by))
    return chain


def train_student(prepared: Prepared, teacher: Trained, workshop: Workshop) -> Trained:
    """The student, trained with the mode's loss under the teacher's guidance."""
    ready, guided_by = guided(prepared, teacher, workshop)
    student = replace(workshop.train(ready), guided_by=guided_by)
    workshop.watcher.stage_ended(student)
    return student


def guided(prepared: Prepared, teacher: Trained, workshop: Workshop) -> tuple[Prepared, str]:
    """The training with its guide, now that the teacher is trained, and the name of the guide."""
    training = replace(prepared.training, teacher=teacher.fingerprint)
    prepared.assembly.take_from(teacher.network)
    guide, name = make_guide(training, prepared.assembly, teacher, workshop)
    if name == "live teacher":
        workshop.watcher.noted(f"{training.stage}: {teacher.name} runs live in every step")
    return replace(prepared, training=training, guide=guide), name
