"""Pairing: which features of two networks are compared, what is made for them, and what cannot be paired."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import TINY
from distill_run.build import Builder
from distill_run.data.batches import Batch
from distill_run.errors import user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, Objective, Pair, ReplacesStudent
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.stages.assembly import Assembly
from distill_run.stages.pairing import pair_up
from helpers import message_of
from workshops import Opened, open_run

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
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    own = [override for override in TINY if not override.startswith(("teacher", "student"))]
    return open_run(tmp_path_factory.mktemp("pairing"), [*own, *NETWORKS])


def network_of(opened: Opened, stage: str, **changes: Any) -> Network:
    """A network of the run with fresh weights."""
    training = opened.lineup.student.training if stage == "student" else opened.lineup.teachers[0].training
    return opened.workshop.assembler.make_network(training, {**training.architecture.node, **changes})


@dataclass(frozen=True)
class Paired:
    """A loss that was fitted to two networks, and the points that it reads."""

    loss: TotalLoss
    student: Network
    student_points: dict[str, str]
    teacher_points: dict[str, str]


def pair(
    opened: Opened,
    *terms: Objective,
    teacher: Network | Ensemble | None = None,
    student: Network | None = None,
    seed: int = 0,
    **others: Objective,
) -> Paired:
    loss = TotalLoss({"distillation": terms[0], **others} if terms else others, 0.0)
    student = student or network_of(opened, "student")
    training = dataclasses.replace(opened.lineup.student.training, seed=seed)
    points = pair_up(loss, training, student, teacher or network_of(opened, "teacher"), opened.workshop.feed)
    return Paired(loss, student, *points)


def soft() -> SoftTargets:
    return SoftTargets(temperature=4.0, alpha=0.5, weight=1.0, divergence="forward", standardize_logits=False)


def test_stages_are_paired_from_the_deepest_on(opened: Opened) -> None:
    term = Imitation(["stages"])
    paired = pair(opened, term)
    assert term.student_points == ["stage1", "stage2"]
    assert term.teacher_points == ["stage3", "stage4"]
    assert term.pair.student == [(2, 4, 4), (4, 2, 2)]
    assert term.pair.teacher == [(7, 1, 1), (9, 1, 1)]
    assert paired.student_points == {"stage1": "stages.0", "stage2": "stages.1"}
    assert paired.teacher_points == {"stage3": "stages.2", "stage4": "stages.3"}
    term = Imitation(["stages_preact"])  # the teacher has fewer
    pair(opened, term, teacher=network_of(opened, "teacher", widths=[5]))
    assert (term.student_points, term.teacher_points) == (["stage2_preact"], ["stage1_preact"])
    assert (term.pair.student, term.pair.teacher) == ([(4, 2, 2)], [(5, 4, 4)])


def test_points_that_are_named_are_paired_in_their_order(opened: Opened) -> None:
    term = Imitation(["stage2", "stages.0"], ["stage-4", "stage3"])
    paired = pair(opened, term, seed=3)
    assert (term.student_points, term.teacher_points) == (["stage2", "stages.0"], ["stage1", "stage3"])
    assert (term.pair.student, term.pair.teacher) == ([(4, 2, 2), (2, 4, 4)], [(3, 4, 4), (7, 1, 1)])
    assert paired.student_points == {"stage2": "stages.1", "stages.0": "stages.0"}
    assert list(paired.teacher_points) == ["stage1", "stage3"]
    assert torch.equal(term.pair.targets, opened.workshop.feed.train.targets)
    assert (term.pair.num_classes, term.pair.seed) == (10, 3)


def test_terms_that_read_different_points_are_read_together(opened: Opened) -> None:
    first, second = Imitation(["stage1"]), Imitation(["stages"], ["stage-1", "stage-2"])
    paired = pair(opened, first, soft=soft(), other=second)
    assert list(paired.student_points) == ["stage1", "stage2"]
    assert list(paired.teacher_points) == ["stage1", "stage4", "stage3"]
    assert second.teacher_points == ["stage4", "stage3"]


def weights_after(opened: Opened, seed: int) -> dict[str, Tensor]:
    term = Imitation(["stages"])
    pair(opened, term, seed=seed)
    return term.state_dict()


def test_the_projections_are_a_function_of_the_students_seed(opened: Opened) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights_after(opened, 0)
    assert torch.equal(torch.get_rng_state(), before)  # nor do they change what others draw
    torch.manual_seed(2)
    second, other = weights_after(opened, 0), weights_after(opened, 1)
    assert first.keys() == second.keys()
    assert len(first) == 4
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_the_teacher_is_left_as_it_was(opened: Opened) -> None:
    teacher = network_of(opened, "teacher").train()
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    pair(opened, Imitation(["stages"]), teacher=teacher)
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())


def test_what_cannot_be_paired_is_told_with_the_mode_or_with_the_added_term(opened: Opened) -> None:
    counts = "of the teacher do not make pairs\n  name as many in mode.student_points as in mode.teacher_points"
    path = "pooled, the path of one of its modules, or another network"
    teachers = "stage1, stage2, stage3, stage4, stage1_preact, stage2_preact, stage3_preact, stage4_preact"
    for ours, theirs, message in (
        (["stage1", "stage2"], ["stage1"], f"2 points of the student and 1 {counts}"),
        (["stage1"], ["stages"], f"1 points of the student and 4 {counts}"),
        (["stage9"], ["stage1"],
         f"student has no point stage9\n  choose from stage1, stage2, stage1_preact, stage2_preact, {path}"),
        (["stage1"], ["stage-5"], f"teacher has no point stage-5\n  choose from {teachers}, {path}"),
        (["pooled"], ["stage1"], "(6,) and (3, 4, 4) do not go together\n  choose others"),
    ):  # fmt: skip
        assert message_of(pair, opened, Imitation(ours, theirs)) == f"mode=soft: {message}"
    assert message_of(pair, opened, soft(), hints=Imitation(["stage1", "stage2"], ["stage1"])) == (
        "mode=hints: 2 points of the student and 1 of the teacher do not make pairs\n"
        "  name as many in mode.also.hints.student_points as in mode.also.hints.teacher_points"
    )


def test_features_of_several_teachers_are_not_compared(opened: Opened) -> None:
    several = Ensemble([network_of(opened, "teacher"), network_of(opened, "teacher")], [0.5, 0.5])
    assert message_of(pair, opened, soft(), hints=Imitation(["stage1"]), teacher=several) == (
        "mode=hints: it compares features, and there are 2 teachers\n"
        "  give one teacher, or choose a mode that works from logits, as in mode=soft"
    )
    assert pair(opened, soft(), teacher=several).student_points == {}


def test_networks_that_name_no_points_are_paired_by_those_that_are_found(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "unnamed_points.py").write_text(
        "from torch import nn\n"
        "def net(in_channels, image_size, num_classes, width):\n"
        "    first = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())\n"
        "    second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())\n"
        "    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))\n"
    )
    assembler = dataclasses.replace(opened.workshop.assembler, builder=Builder(code_dir=tmp_path))
    training, node = opened.lineup.student.training, {"_target_": "unnamed_points.net"}
    student, teacher = (assembler.make_network(training, {**node, "width": width}) for width in (2, 3))
    term = Imitation(["stages", "pooled"])
    paired = pair(opened, term, student=student, teacher=teacher)
    assert paired.student_points == {"stage1": "0", "stage2": "1", "pooled": "4:input"} == paired.teacher_points
    assert (term.pair.student, term.pair.teacher) == ([(2, 8, 8), (4, 4, 4), (4,)], [(3, 8, 8), (6, 4, 4), (6,)])


class Twin(FeatureObjective, ReplacesStudent):
    """A mode whose student begins with one of the teacher's tensors."""

    def __init__(self, given: str) -> None:
        super().__init__(weight=1.0, student_points=["stage1"], teacher_points=["stage1"])
        self.given = given

    def student_node(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
        return teacher

    def given_weights(self, teacher: nn.Module) -> dict[str, Tensor]:
        return {self.given: teacher.state_dict()["head.0.weight"]}

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        return student.logits.sum()


def test_weights_that_a_mode_gives_are_checked_by_name(opened: Opened) -> None:
    teacher, twin = network_of(opened, "teacher"), network_of(opened, "teacher")
    with torch.no_grad():
        teacher.architecture.state_dict()["head.0.weight"].add_(1)
    Assembly(twin, {}, TotalLoss({"distillation": Twin("head.0.weight")}, 0.0), {}, {}).take_from(teacher)
    for name, value in twin.architecture.state_dict().items():
        assert torch.equal(value, teacher.architecture.state_dict()[name]), name  # of one seed, all others are equal
    wrong = Assembly(twin, {}, TotalLoss({"distillation": Twin("haed.0.weight")}, 0.0), {}, {})
    assert "haed.0.weight" in message_of(wrong.take_from, teacher)
