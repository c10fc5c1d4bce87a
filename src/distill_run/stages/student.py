"""The student and the assistants: networks that a teacher guides."""

from dataclasses import replace

from distill_run.stages.assembly import Prepared
from distill_run.stages.guides import make_guide
from distill_run.stages.trained import Trained
from distill_run.stages.wanted import Wanted
from distill_run.stages.workshop import Workshop
from distill_run.stretches import Within


def obtain_assistants(several: list[Prepared], teacher: Trained, workshop: Workshop) -> list[Trained]:
    """The chain of assistants: the teacher guides the first, each of them guides the next.

    Source: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", 2020, section 3.
    """
    chain: list[Trained] = []
    for prepared in several:
        chain.append(workshop.obtain("assistant", guided(prepared, [teacher, *chain][-1], workshop)))
    return chain


def want_student(prepared: Prepared, teacher: Trained, workshop: Workshop, within: Within) -> Wanted:
    """The student, to be trained with the mode's loss under the teacher's guidance.

    One of several is kept in the run's directory until the run is completed: a resumed run does not train it again.
    """
    ready = guided(prepared, teacher, workshop)
    if workshop.finished is None:
        return Wanted(ready, workshop, None, within, teacher)
    return Wanted(ready, replace(workshop, store=workshop.finished), "student", within, teacher)


def guided(prepared: Prepared, teacher: Trained, workshop: Workshop) -> Prepared:
    """The training with its guide, now that the teacher is trained."""
    training = replace(prepared.training, teacher=teacher.fingerprint)
    prepared.assembly.take_from(teacher.network)
    guide, name = make_guide(training, prepared.assembly, teacher, workshop)
    if name == "live teacher" and not training.stage.startswith("student "):  # it is said of the first
        workshop.watcher.noted(f"{training.stage}: {teacher.name} runs live in every step")
    return replace(prepared, training=training, guide=guide, guided_by=name)
