"""The objectives of logits: how both terms are weighted, their limits, their parts, and what is refused."""

import inspect
from pydoc import locate
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from distill_run.config.compose import config_dir
from distill_run.data.batches import Batch
from distill_run.losses.logits import (
    correlation_loss,
    decoupled_loss,
    hard_target_loss,
    soft_target_loss,
    virtual_teacher_loss,
)
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, LogitObjective, Objective, TargetObjective
from distill_run.objectives.dist import Correlation
from distill_run.objectives.dkd import Decoupled
from distill_run.objectives.hard import HardTargets
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.objectives.virtual_teacher import VirtualTeacher
from helpers import message_of, numpy_cross_entropy, refusal, some_logits

TARGETS = torch.tensor([0, 3, 3, 1, 2, 0, 4, 4])
BATCH = Batch(torch.arange(8), torch.zeros(8, 1, 2, 2), TARGETS, view=0)
OTHER_TARGETS = Batch(BATCH.indices, BATCH.images, 4 - TARGETS, view=0)
STUDENT, TEACHER = some_logits(0, 8, 5), some_logits(1, 8, 5)
SMOOTHING = 0.2  # of a recipe

# Every objective that works from logits or from nothing, with arguments that it accepts.
ACCEPTED: dict[type[Objective], dict[str, Any]] = {
    SoftTargets: {
        "temperature": 4.0, "alpha": 0.5, "weight": 1.0, "divergence": "forward", "standardize_logits": False,
    },
    HardTargets: {"alpha": 0.5, "label_smoothing": 0.0, "standardize_logits": False},
    VirtualTeacher: {"temperature": 4.0, "alpha": 0.5, "correct_probability": 0.9},
    Decoupled: {
        "temperature": 4.0, "target_weight": 1.0, "non_target_weight": 8.0, "weight": 1.0, "warmup_epochs": 0,
        "standardize_logits": False,
    },
    Correlation: {
        "temperature": 4.0, "inter_weight": 1.0, "intra_weight": 1.0, "weight": 1.0, "standardize_logits": False,
    },
    CrossEntropy: {"label_smoothing": 0.0},
}  # fmt: skip
MIXED = (SoftTargets, HardTargets, VirtualTeacher)  # by an alpha
WEIGHTED = (Decoupled, Correlation)  # beside a whole cross-entropy
DISTILLING = (*MIXED, *WEIGHTED)
TASK = numpy_cross_entropy(STUDENT, TARGETS.numpy())
ASKS_A_TEACHER = (SoftTargets, HardTargets, Decoupled, Correlation)


def made(kind: type[Objective], **changes: Any) -> Objective:
    return kind(**{**ACCEPTED[kind], **changes})


def total(objective: Objective, label_smoothing: float = 0.0) -> TotalLoss:
    return TotalLoss({objective.part: objective}, label_smoothing)


def outputs_for(objective: Objective, dtype: torch.dtype = torch.float64) -> tuple[Outputs, Outputs | None]:
    teacher = None if objective.needs == "nothing" else Outputs(torch.from_numpy(TEACHER).to(dtype))
    return Outputs(torch.from_numpy(STUDENT).to(dtype).requires_grad_()), teacher


def loss_and_gradient(
    objective: Objective, dtype: torch.dtype = torch.float32, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    student, teacher = outputs_for(objective, dtype)
    loss, _ = total(objective, label_smoothing).losses(BATCH, student, teacher)
    torch.autograd.backward(loss)
    assert student.logits.grad is not None
    return loss.detach(), student.logits.grad


def parts_of(objective: Objective, label_smoothing: float = 0.0) -> dict[str, float]:
    _, parts = total(objective, label_smoothing).losses(BATCH, *outputs_for(objective))
    return {name: part.item() for name, part in parts.items()}


def term_of(kind: type[Objective]) -> float:
    """The term of an objective as ACCEPTED describes it, without its weight."""
    student, teacher = torch.from_numpy(STUDENT), torch.from_numpy(TEACHER)
    terms = {
        SoftTargets: lambda: soft_target_loss(student, teacher, 4.0),
        HardTargets: lambda: hard_target_loss(student, teacher),
        VirtualTeacher: lambda: virtual_teacher_loss(student, TARGETS, 4.0, 0.9),
        Decoupled: lambda: decoupled_loss(student, teacher, TARGETS, 4.0, 1.0, 8.0),
        Correlation: lambda: correlation_loss(student, teacher, 4.0, 1.0, 1.0),
    }
    return float(terms[kind]())


@pytest.mark.parametrize("kind", DISTILLING)
def test_without_its_weight_the_term_is_left_out_bit_for_bit(kind: type[Objective]) -> None:
    without = made(kind, **{"alpha" if kind in MIXED else "weight": 0.0})
    for label_smoothing in (0.0, 0.1):
        loss, gradient = loss_and_gradient(without, label_smoothing=label_smoothing)
        expected, expected_gradient = loss_and_gradient(made(CrossEntropy, label_smoothing=label_smoothing))
        assert torch.equal(loss, expected)
        assert torch.equal(gradient, expected_gradient)
        plain = F.cross_entropy(torch.from_numpy(STUDENT).float(), TARGETS, label_smoothing=label_smoothing)
        assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    if kind in MIXED and kind in ASKS_A_TEACHER:
        broken = Outputs(torch.full((8, 5), torch.nan))  # 0 * nan is nan: the term must not be multiplied by 0
        loss, _ = total(without).losses(BATCH, Outputs(torch.from_numpy(STUDENT)), broken)
        assert loss.item() == pytest.approx(TASK)


@pytest.mark.parametrize("kind", MIXED)
def test_alpha_weighs_the_term_against_cross_entropy_without_a_jump(kind: type[Objective]) -> None:
    """torchdistill drops temperature^2 at alpha 0: there the loss is 16 times smaller than at 1e-6."""
    for alpha in (0.0, 1e-6, 0.1, 0.5, 0.9, 1.0):
        loss, _ = loss_and_gradient(made(kind, alpha=alpha), torch.float64)
        assert loss.item() == pytest.approx((1 - alpha) * TASK + alpha * term_of(kind), rel=1e-10), alpha
    smoothed, _ = loss_and_gradient(made(kind, alpha=1.0), torch.float64, label_smoothing=SMOOTHING)
    assert smoothed.item() == pytest.approx(term_of(kind), rel=1e-10)


def test_a_weight_is_a_factor_of_its_term_alone() -> None:
    loss, _ = loss_and_gradient(made(SoftTargets, alpha=0.3, weight=9.0), torch.float64)
    assert loss.item() == pytest.approx(0.7 * TASK + 0.3 * 9 * term_of(SoftTargets), rel=1e-10)
    for kind in WEIGHTED:
        for weight in (1e-8, 2.5):
            loss, _ = loss_and_gradient(made(kind, weight=weight), torch.float64)
            assert loss.item() == pytest.approx(TASK + weight * term_of(kind), rel=1e-10), kind


@pytest.mark.parametrize("kind", DISTILLING)
def test_parts_are_named_and_not_weighted_and_the_recipe_smooths_the_cross_entropy_alone(kind: type[Objective]) -> None:
    for value in (0.0, 0.3, 1.0):
        parts = parts_of(made(kind, **{"alpha" if kind in MIXED else "weight": value}))
        assert parts == pytest.approx({"cross_entropy": TASK, "distillation": term_of(kind)})
    smoothed = numpy_cross_entropy(STUDENT, TARGETS.numpy(), SMOOTHING)
    assert parts_of(made(kind), SMOOTHING) == pytest.approx({"cross_entropy": smoothed, "distillation": term_of(kind)})


def test_the_label_smoothing_of_hard_targets_reaches_the_cross_entropy_with_the_decision_and_no_other_part() -> None:
    parts = parts_of(made(HardTargets, label_smoothing=0.3), 0.1)
    assert parts["cross_entropy"] == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy(), 0.1))
    assert parts["distillation"] == pytest.approx(numpy_cross_entropy(STUDENT, TEACHER.argmax(axis=1), 0.3))


def test_cross_entropy_alone_asks_nothing_of_a_teacher_and_has_one_part_with_its_own_smoothing() -> None:
    objective = made(CrossEntropy, label_smoothing=0.2)
    loss, parts = total(objective, label_smoothing=0.1).losses(BATCH, *outputs_for(objective))
    expected = numpy_cross_entropy(STUDENT, TARGETS.numpy(), 0.2)
    assert loss.item() == pytest.approx(expected)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx({"cross_entropy": expected})


def test_every_mode_is_a_final_class_with_one_of_the_three_bases() -> None:
    for path in (config_dir() / "mode").glob("*.yaml"):
        kind: Any = locate(yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"])
        bases = [base for base in (TargetObjective, LogitObjective, FeatureObjective) if issubclass(kind, base)]
        assert len(bases) == 1, path
        assert kind.__final__, path


class Given(LogitObjective):
    """Keeps the outputs that it is given."""

    def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
        self.outputs = student, teacher
        return student.logits.sum()


def test_only_an_objective_that_asks_for_them_is_given_standardised_logits() -> None:
    plain, standardising = Given(), Given()
    standardising.standardize(True)
    outputs = Outputs(torch.from_numpy(STUDENT), {"map": torch.ones(8, 2)}), Outputs(torch.from_numpy(TEACHER))
    _, parts = TotalLoss({"plain": plain, "standardising": standardising}, 0.0).losses(BATCH, *outputs)
    assert plain.outputs == outputs
    for given, logits in zip(standardising.outputs, (STUDENT, TEACHER), strict=True):
        expected = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
        np.testing.assert_allclose(given.logits.numpy(), expected, rtol=1e-5)
    assert standardising.outputs[0].features == outputs[0].features
    assert parts["cross_entropy"].item() == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy()))


def test_each_argument_reaches_the_term() -> None:
    for kind, name, value in (
        (SoftTargets, "temperature", 2.0), (SoftTargets, "divergence", "reverse"),
        (SoftTargets, "divergence", "jensen_shannon"), (VirtualTeacher, "temperature", 2.0),
        (VirtualTeacher, "correct_probability", 0.5), (Decoupled, "temperature", 2.0),
        (Decoupled, "target_weight", 2.0), (Decoupled, "non_target_weight", 2.0), (Correlation, "temperature", 2.0),
        (Correlation, "inter_weight", 2.0), (Correlation, "intra_weight", 2.0),
    ):  # fmt: skip
        changed = parts_of(made(kind, **{name: value}))["distillation"]
        assert changed != pytest.approx(term_of(kind), rel=1e-3), (kind, name)


def test_what_an_objective_asks_of_the_teacher_and_of_its_mode_file() -> None:
    """The defaults stand in YAML alone; test_schema.py finds any in a constructor."""
    for kind, arguments in ACCEPTED.items():
        objective = made(kind)
        assert objective.needs == ("logits" if kind in ASKS_A_TEACHER else "nothing")
        assert inspect.signature(kind).parameters.keys() == arguments.keys()
        assert list(objective.parameters()) == []
        assert objective.state_dict() == {}


ABOVE_0, AT_LEAST_0, FRACTION, ONE_OF_3 = (
    "a number above 0",
    "a number of at least 0",
    "a number from 0 to 1",
    "true, false or sample",
)
BELOW_1, INSIDE = "a number from 0 to below 1", "a number between 0 and 1"
# What each argument of each objective refuses, and how it says what it accepts.
REFUSED: dict[type[Objective], dict[str, tuple[list[object], str]]] = {
    SoftTargets: {
        "temperature": ([0, "4", True], ABOVE_0), "alpha": ([-0.1, 1.5, None], FRACTION), "weight": ([-1], AT_LEAST_0),
        "divergence": (["kl"], "one of forward, reverse, jensen_shannon"), "standardize_logits": ([1, "std"], ONE_OF_3),
    },
    HardTargets: {
        "alpha": ([2], FRACTION), "label_smoothing": ([-1], BELOW_1), "standardize_logits": ([None], ONE_OF_3),
    },
    VirtualTeacher: {
        "temperature": ([0.0], ABOVE_0), "alpha": ([1.1], FRACTION), "correct_probability": ([1, 0.0], INSIDE),
    },
    Decoupled: {
        "temperature": ([-4], ABOVE_0), "target_weight": ([-1], AT_LEAST_0), "non_target_weight": ([-1], AT_LEAST_0),
        "weight": ([-1], AT_LEAST_0), "warmup_epochs": ([-1], AT_LEAST_0), "standardize_logits": (["yes"], ONE_OF_3),
    },
    Correlation: {
        "temperature": ([0], ABOVE_0), "inter_weight": ([-1], AT_LEAST_0), "intra_weight": ([-1], AT_LEAST_0),
        "weight": (["2"], AT_LEAST_0), "standardize_logits": ([0], ONE_OF_3),
    },
    CrossEntropy: {"label_smoothing": ([1], BELOW_1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_an_objective_refuses_what_it_cannot_use(kind: type[Objective]) -> None:
    assert REFUSED[kind].keys() == ACCEPTED[kind].keys()
    for name, (values, words) in REFUSED[kind].items():
        for value in values:
            assert message_of(made, kind, **{name: value}) == refusal(name, value, words)
