"""Pairing: which features of two networks are compared, what is made for them, and what cannot be paired."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import TINY
from distill_run.build import Builder
from distill_run.config.compose import compose_config
from distill_run.console import Console
from distill_run.data.batches import Batch
from distill_run.engine.interrupt import StopRequest
from distill_run.errors import user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Objective, Pair
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.stages.pairing import pair_up
from distill_run.stages.prepare import prepare
from distill_run.stages.student import baseline_plan
from distill_run.stages.training import Bench, Plan, make_network, make_trainer
from helpers import message_of

# Digits of 8x8: the teacher's stages give 4x4, 2x2, 1x1 and 1x1, the student's 4x4 and 2x2.
NETWORKS = (
    *("teacher=cnn_tiny", "teacher.widths=[3,5,7,9]"),
    *("student=cnn_tiny", "student.widths=[2,4]", "student.hidden=[6]"),
)


class Imitation(FeatureObjective):
    """The student's features, projected, imitate the teacher's; what it was fitted to can be looked at."""

    def __init__(self, student_points: list[str], teacher_points: list[str] | None = None) -> None:
        super().__init__(weight=1.0, student_points=student_points, teacher_points=teacher_points or student_points)

    def fit_to(self, pair: Pair) -> None:
        self.pair, self.projections = pair, nn.ModuleList()
        for ours, theirs in zip(pair.student, pair.teacher, strict=True):
            if len(ours) != len(theirs):
                raise user_error(f"{ours} and {theirs} do not go together", "choose others")
            self.projections.append(nn.Linear(ours[0], theirs[0]))

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        pairs = zip(self.projections, self.features(student, teacher), strict=True)
        means = [(net(ours.flatten(2).mean(2)) - theirs.flatten(2).mean(2)) for net, (ours, theirs) in pairs]
        return torch.stack([mean.square().mean() for mean in means]).sum()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("pairing")
    own = [override for override in TINY if not override.startswith(("teacher", "student"))]
    settings = compose_config([*own, *NETWORKS, f"store_dir={folder / 'store'}"])
    with StopRequest() as stop:
        yield prepare(settings, folder / "run", Console(quiet=True), stop)


def teacher_of(bench: Bench) -> Network:
    return make_network(bench.settings.teacher, "teacher", 7, bench)


def plan_of(bench: Bench, *terms: Objective, **others: Objective) -> Plan:
    loss = TotalLoss({"distillation": terms[0], **others} if terms else others, 0.0)
    return dataclasses.replace(baseline_plan(bench), loss=loss)


def paired(bench: Bench, *terms: Objective, **others: Objective) -> tuple[Plan, dict[str, str]]:
    return pair_up(plan_of(bench, *terms, **others), teacher_of(bench), bench.settings.teacher, bench)


def soft() -> SoftTargets:
    return SoftTargets(temperature=4.0, alpha=0.5, weight=1.0, divergence="forward", standardize_logits=False)


def test_stages_are_paired_from_the_deepest_on(bench: Bench) -> None:
    term = Imitation(["stages"])
    plan, teacher_points = paired(bench, term)
    assert term.student_points == ["stage1", "stage2"]
    assert term.teacher_points == ["stage3", "stage4"]
    assert term.pair.student == [(2, 4, 4), (4, 2, 2)]
    assert term.pair.teacher == [(7, 1, 1), (9, 1, 1)]
    assert plan.points == {"stage1": "stages.0", "stage2": "stages.1"}
    assert teacher_points == {"stage3": "stages.2", "stage4": "stages.3"}


def test_so_they_are_where_the_teacher_has_fewer(bench: Bench) -> None:
    teacher = make_network({**bench.settings.teacher, "widths": [5]}, "teacher", 7, bench)
    term = Imitation(["stages_preact"])
    pair_up(plan_of(bench, term), teacher, bench.settings.teacher, bench)
    assert (term.student_points, term.teacher_points) == (["stage2_preact"], ["stage1_preact"])
    assert (term.pair.student, term.pair.teacher) == ([(4, 2, 2)], [(5, 4, 4)])


def test_points_that_are_named_are_paired_in_their_order(bench: Bench) -> None:
    term = Imitation(["stage2", "stages.0"], ["stage-4", "stage3"])
    plan, teacher_points = paired(bench, term)
    assert (term.student_points, term.teacher_points) == (["stage2", "stages.0"], ["stage1", "stage3"])
    assert (term.pair.student, term.pair.teacher) == ([(4, 2, 2), (2, 4, 4)], [(3, 4, 4), (7, 1, 1)])
    assert plan.points == {"stage2": "stages.1", "stages.0": "stages.0"}
    assert list(teacher_points) == ["stage1", "stage3"]


def test_a_term_is_fitted_to_the_training_set_as_well(bench: Bench) -> None:
    term = Imitation(["stage-1"])
    paired(bench, term)
    assert torch.equal(term.pair.targets, bench.dataset.train.targets)
    assert (term.pair.num_classes, term.pair.seed) == (10, bench.settings.seed)


def test_terms_that_read_different_points_are_read_together(bench: Bench) -> None:
    first, second = Imitation(["stage1"]), Imitation(["stages"], ["stage-1", "stage-2"])
    plan, teacher_points = paired(bench, first, soft=soft(), other=second)
    assert list(plan.points) == ["stage1", "stage2"]
    assert list(teacher_points) == ["stage1", "stage4", "stage3"]
    assert second.teacher_points == ["stage4", "stage3"]


def test_a_loss_that_reads_no_features_is_left_as_it_is(bench: Bench) -> None:
    plan = plan_of(bench, soft())
    assert pair_up(plan, teacher_of(bench), bench.settings.teacher, bench) == (plan, {})


def weights_after(bench: Bench, seed: int) -> dict[str, Tensor]:
    term = Imitation(["stages"])
    plan = dataclasses.replace(plan_of(bench, term), seed=seed)
    pair_up(plan, teacher_of(bench), bench.settings.teacher, bench)
    return term.state_dict()


def test_the_projections_are_a_function_of_the_students_seed(bench: Bench) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights_after(bench, 0)
    assert torch.equal(torch.get_rng_state(), before)  # nor do they change what others draw
    torch.manual_seed(2)
    second, other = weights_after(bench, 0), weights_after(bench, 1)
    assert first.keys() == second.keys()
    assert len(first) == 4
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_both_networks_are_left_as_they_were(bench: Bench) -> None:
    teacher = teacher_of(bench).train()
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    plan = plan_of(bench, Imitation(["stages"]))
    pair_up(plan, teacher, bench.settings.teacher, bench)
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())
    assert plan.points == {}


def test_what_a_term_has_made_is_trained_with_the_student(bench: Bench) -> None:
    plan, _ = paired(bench, Imitation(["stages"]), other=Imitation(["stage1"]))
    trainer = make_trainer(plan, bench, None)
    optimized = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
    assert len(list(trainer.loss.parameters())) == 6
    assert all(id(parameter) in optimized for parameter in trainer.loss.parameters())
    assert trainer.state()["loss"].keys() == trainer.loss.state_dict().keys()
    assert set(trainer.read.points) == {"stage1", "stage2"}


COUNTS = "name as many in mode.student_points as in mode.teacher_points"
STUDENTS = "stage1, stage2, stage1_preact, stage2_preact, pooled"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            (["stage1", "stage2"], ["stage1"]),
            f"mode=soft: 2 points of the student and 1 of the teacher do not make pairs\n  {COUNTS}",
        ),
        (
            (["stage1"], ["stages"]),
            f"mode=soft: 1 points of the student and 4 of the teacher do not make pairs\n  {COUNTS}",
        ),
        (
            (["stage9"], ["stage1"]),
            f"mode=soft: student has no point stage9\n  choose from {STUDENTS}, or the path of one of its modules",
        ),
        (
            (["stage1"], ["stage-5"]),
            "mode=soft: teacher has no point stage-5\n  choose from stage1, stage2, stage3, stage4, stage1_preact, "
            "stage2_preact, stage3_preact, stage4_preact, pooled, or the path of one of its modules",
        ),
        ((["pooled"], ["stage1"]), "mode=soft: (6,) and (3, 4, 4) do not go together\n  choose others"),
    ],
)
def test_what_cannot_be_paired_is_told_with_the_mode(
    bench: Bench, points: tuple[list[str], list[str]], message: str
) -> None:
    assert message_of(paired, bench, Imitation(*points)) == message


def test_the_mistake_of_an_added_term_names_that_one(bench: Bench) -> None:
    message = message_of(paired, bench, soft(), hints=Imitation(["stage1", "stage2"], ["stage1"]))
    assert message == (
        "mode=hints: 2 points of the student and 1 of the teacher do not make pairs\n"
        "  name as many in mode.also.hints.student_points as in mode.also.hints.teacher_points"
    )


def test_features_of_several_teachers_are_not_compared(bench: Bench) -> None:
    several = Ensemble([teacher_of(bench), teacher_of(bench)], [0.5, 0.5])
    plan = plan_of(bench, soft(), hints=Imitation(["stage1"]))
    assert message_of(pair_up, plan, several, {}, bench) == (
        "mode=hints: it compares features, and there are 2 teachers\n"
        "  give one teacher, or choose a mode that works from logits, as mode=soft"
    )
    plan = plan_of(bench, soft())
    assert pair_up(plan, several, {}, bench) == (plan, {})


def test_networks_that_name_no_points_are_paired_by_those_that_are_found(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "unnamed_points.py").write_text(
        "from torch import nn\n"
        "def net(in_channels, image_size, num_classes, width):\n"
        "    first = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())\n"
        "    second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())\n"
        "    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))\n"
    )
    own = dataclasses.replace(bench, builder=Builder(code_dir=tmp_path))
    node: dict[str, Any] = {"_target_": "unnamed_points.net", "width": 3}
    term = Imitation(["stages", "pooled"])
    plan = dataclasses.replace(plan_of(own, term), node={**node, "width": 2})
    plan, teacher_points = pair_up(plan, make_network(node, "teacher", 0, own), node, own)
    assert plan.points == {"stage1": "0", "stage2": "1", "pooled": "4:input"} == teacher_points
    assert (term.pair.student, term.pair.teacher) == ([(2, 8, 8), (4, 4, 4), (4,)], [(3, 8, 8), (6, 4, 4), (6,)])
