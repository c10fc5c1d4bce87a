"""The student: alone on its own budget (the baseline), and with the teacher as its guide."""

import dataclasses

from distill_run.fit import Guide
from distill_run.objectives.base import Objective
from distill_run.stages.entry import obtain, save_network
from distill_run.stages.logit_bank import BankedTeacher, fits
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.teacher import LiveTeacher
from distill_run.stages.training import Bench, Curve, Plan, Trained, inputs_of, make_batches, plan_alone, train
from distill_run.store import fingerprint


def baseline_plan(bench: Bench) -> Plan:
    """How the baseline is trained: exactly as the student is, but for the objective."""
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


def make_guide(plan: Plan, teacher: Trained, bench: Bench) -> Guide | None:
    """What gives the teacher's outputs: the logit bank where there is room for it, else the teacher live."""
    if plan.objective.needs == "nothing":
        return None
    if fits(plan, bench):
        return BankedTeacher(teacher.network, teacher.fingerprint, make_batches(plan, bench).views, bench)
    return LiveTeacher(teacher.network, bench.device)


def train_student(plan: Plan, curve: Curve, objective: Objective, teacher: Trained, bench: Bench) -> Trained:
    """The student trained with `objective`, guided by the teacher; leaves checkpoints/student.pt in the run."""
    mode = bench.settings.mode
    inputs = {"mode": mode, "mode_code": bench.builder.code_hash(mode), "teacher": teacher.fingerprint}
    plan = dataclasses.replace(plan, stage="student", objective=objective, inputs=inputs)
    student = train(plan, bench, fingerprint(inputs_of(plan, bench)), make_guide(plan, teacher, bench), curve)
    save_network(student, plan.node, bench, bench.run_dir / "checkpoints" / "student.pt")
    return student
