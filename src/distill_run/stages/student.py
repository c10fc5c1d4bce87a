"""The student: alone on its own budget (the baseline), and guided by the teacher, or by assistants between them."""

import dataclasses

from distill_run.data.batches import Batch
from distill_run.engine.loop import Guide
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.assemble import build_objectives
from distill_run.objectives.total import TotalLoss
from distill_run.stages.entry import obtain, save_network
from distill_run.stages.logit_bank import BankedTeacher, fits
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.pairing import Points, pair_up
from distill_run.stages.teacher import LiveTeacher, teacher_seeds
from distill_run.stages.trained import Curve, Trained
from distill_run.stages.training import (
    Architecture,
    Bench,
    Plan,
    inputs_of,
    plan_alone,
    train,
    view_choice,
)
from distill_run.store import fingerprint


def baseline_plan(bench: Bench) -> Plan:
    """How the baseline is trained: exactly as the student is, but for the loss."""
    settings = bench.settings
    student = Architecture("student", settings.names.student, settings.student)
    return plan_alone("baseline", student, "student", settings.seed, settings.training.view_seed, bench)


def assistant_plans(bench: Bench) -> list[Plan]:
    """How the assistants are trained: as the student is, but from the teacher's seed, so that all seeds share them."""
    seed = teacher_seeds(bench.settings)[0]
    return [
        plan_alone(
            "assistant" if number == 1 else f"assistant {number}",
            Architecture(f"assistants.{name}", name, node),
            "student",
            seed,
            seed,
            bench,
        )
        for number, (name, node) in enumerate(bench.settings.assistants.items(), start=1)
    ]


def find_student_rate(bench: Bench) -> tuple[Plan, Curve]:
    """The baseline's plan with the learning rate that both students use, and the curve of the search.

    The rate is searched with cross-entropy, so that it is found once for all modes, and the comparison stays fair.
    """
    return find_learning_rate(baseline_plan(bench), bench)


def obtain_baseline(plan: Plan, curve: Curve, bench: Bench) -> Trained:
    """The student trained alone, from the store where it is there."""
    baseline = obtain("baseline", plan, curve, bench)
    if baseline.reused:
        bench.console.note(f"baseline: {baseline.name} {baseline.fingerprint[:12]} reused from the store")
    return baseline


class SeveralTeachers:
    """A fit.Guide that asks each of several, and gives what they say together."""

    def __init__(self, guides: list[tuple[float, Guide]]) -> None:
        self.guides = guides

    def __call__(self, batch: Batch) -> Outputs:
        """The outputs of all, by their weights."""
        return Outputs.of_several(tuple((weight, guide(batch).logits) for weight, guide in self.guides))


def make_guide(plan: Plan, teacher: Trained, points: Points, bench: Bench) -> tuple[Guide | None, str]:
    """What gives the teacher's outputs, and its name: the logit bank where it fits and will do, else the teacher."""
    if plan.loss.needs == "nothing":
        return None, "nothing"
    members = teacher.members or ((1.0, teacher),)
    is_banked = plan.loss.needs == "logits" and fits(plan, len(members), bench)
    views = view_choice(plan, bench)
    guides: list[tuple[float, Guide]] = []
    for weight, member in members:
        assert isinstance(member.network, Network)
        if is_banked:
            guides.append((weight, BankedTeacher(member.network, member.fingerprint, views, bench)))
        else:
            guides.append((weight, LiveTeacher(member.network, bench.device, points)))
    return guides[0][1] if len(guides) == 1 else SeveralTeachers(guides), "logit bank" if is_banked else "live teacher"


def with_mode(plan: Plan, bench: Bench) -> Plan:
    """The plan with the mode's loss in place of cross-entropy alone."""
    objectives = build_objectives(bench.settings.mode, bench.builder)
    return dataclasses.replace(plan, loss=TotalLoss(objectives, plan.recipe.label_smoothing))


def distil(plan: Plan, teacher: Trained, bench: Bench) -> tuple[Plan, Guide | None, str]:
    """The plan of a training with the mode's loss, what gives it the teacher's outputs, and the name of that."""
    mode = bench.settings.mode
    plan, points = pair_up(with_mode(plan, bench), teacher.network, teacher.node, bench)
    nodes = [mode, *mode.get("also", {}).values()]
    inputs = {"mode": mode, "mode_code": bench.builder.code_hash(*nodes), "teacher": teacher.fingerprint}
    plan = dataclasses.replace(plan, inputs=inputs)
    guide, guided_by = make_guide(plan, teacher, points, bench)
    if guided_by == "live teacher":
        bench.console.note(f"{plan.stage}: {teacher.name} runs live in every step")
    return plan, guide, guided_by


def obtain_assistants(teacher: Trained, bench: Bench) -> list[Trained]:
    """The chain of assistants, each taught by the one before it, the first by the teacher.

    Source: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", 2020, section 3.
    """
    chain: list[Trained] = []
    for alone in assistant_plans(bench):
        found, curve = find_learning_rate(alone, bench)
        plan, guide, guided_by = distil(found, [teacher, *chain][-1], bench)
        assistant = obtain("assistant", plan, curve, bench, guide)
        bench.console.note(
            f"{plan.stage}: {assistant.name} {assistant.fingerprint[:12]} {assistant.origin_text}, "
            f"validation accuracy {assistant.selected.val['accuracy']:.2%}"
        )
        chain.append(dataclasses.replace(assistant, guided_by=guided_by))
    return chain


def train_student(plan: Plan, curve: Curve, teacher: Trained, bench: Bench) -> Trained:
    """The student trained with the mode's loss, guided by the teacher; leaves checkpoints/student.pt in the run."""
    plan, guide, guided_by = distil(dataclasses.replace(plan, stage="student"), teacher, bench)
    student = train(plan, bench, fingerprint(inputs_of(plan, bench)), guide, curve)
    bench.metrics.extend(student.history)
    save_network(student, bench, bench.run_dir / "checkpoints" / "student.pt")
    return dataclasses.replace(student, guided_by=guided_by)
