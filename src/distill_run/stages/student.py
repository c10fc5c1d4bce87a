"""The student: alone on its own budget (the baseline), and with the teacher as its guide."""

import dataclasses

from distill_run.fit import Guide
from distill_run.objectives.assemble import build_objectives
from distill_run.objectives.total import TotalLoss
from distill_run.stages.entry import obtain, save_network
from distill_run.stages.logit_bank import BankedTeacher, fits
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.pairing import Points, pair_up
from distill_run.stages.teacher import LiveTeacher
from distill_run.stages.training import (
    Bench,
    Curve,
    Plan,
    Trained,
    inputs_of,
    make_batches,
    make_network,
    plan_alone,
    train,
)
from distill_run.store import fingerprint


def baseline_plan(bench: Bench) -> Plan:
    """How the baseline is trained: exactly as the student is, but for the loss."""
    settings = bench.settings
    return plan_alone("baseline", "student", settings.seed, settings.training.view_seed, bench)


def find_student_rate(bench: Bench) -> tuple[Plan, Curve]:
    """The baseline's plan with the learning rate that both students use, and the curve of the search.

    The rate is searched with cross-entropy, so that it is found once for all modes, and the comparison stays fair.
    """
    return find_learning_rate(baseline_plan(bench), bench)


def obtain_baseline(plan: Plan, curve: Curve, bench: Bench) -> Trained:
    """The student trained alone, from the store where it is there."""
    baseline = obtain("baseline", plan, bench, curve)
    if baseline.reused:
        bench.console.note(f"baseline: {baseline.name} {baseline.fingerprint[:12]} reused from the store")
    return baseline


def make_guide(plan: Plan, teacher: Trained, points: Points, bench: Bench) -> tuple[Guide | None, str]:
    """What gives the teacher's outputs, and its name: the logit bank where it will do and fits, else the teacher live."""
    if plan.loss.needs == "nothing":
        return None, "nothing"
    if plan.loss.needs == "logits" and fits(plan, bench):
        bank = BankedTeacher(teacher.network, teacher.fingerprint, make_batches(plan, bench).views, bench)
        return bank, "logit bank"
    return LiveTeacher(teacher.network, bench.device, points.teacher), "live teacher"


def train_student(plan: Plan, curve: Curve, teacher: Trained, bench: Bench) -> Trained:
    """The student trained with the mode's loss, guided by the teacher; leaves checkpoints/student.pt in the run."""
    mode = bench.settings.mode
    nodes = [mode, *mode.get("also", {}).values()]
    inputs = {"mode": mode, "mode_code": bench.builder.code_hash(*nodes), "teacher": teacher.fingerprint}
    loss = TotalLoss(build_objectives(mode, bench.builder), plan.recipe.label_smoothing)
    network = make_network(plan.node, plan.key, plan.seed, bench)
    points = pair_up(loss, network, teacher.network, plan.seed, bench)
    plan = dataclasses.replace(plan, stage="student", loss=loss, points=points.student, inputs=inputs)
    guide, guided_by = make_guide(plan, teacher, points, bench)
    if guided_by == "live teacher":
        bench.console.note("student: the teacher runs live in every step")
    student = train(plan, bench, fingerprint(inputs_of(plan, bench)), guide, curve)
    save_network(student, plan.node, bench, bench.run_dir / "checkpoints" / "student.pt")
    return dataclasses.replace(student, guided_by=guided_by)
