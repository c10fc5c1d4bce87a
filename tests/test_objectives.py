"""What the student minimises in each mode of logits: the mix of both terms, its limits, its parts and its refusals."""

import inspect
from collections.abc import Callable
from pathlib import Path
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
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, LogitObjective, Objective, TargetObjective
from distill_run.objectives.dist import Correlation
from distill_run.objectives.dkd import Decoupled
from distill_run.objectives.hard import HardTargets
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.objectives.virtual_teacher import VirtualTeacher
from helpers import message_of, numpy_cross_entropy, numpy_log_softmax, some_logits

TARGETS = torch.tensor([0, 3, 3, 1, 2, 0, 4, 4])
BATCH = Batch(torch.arange(8), torch.zeros(8, 1, 2, 2), TARGETS, view=0)
OTHER_TARGETS = Batch(BATCH.indices, BATCH.images, 4 - TARGETS, view=0)
STUDENT, TEACHER = some_logits(0, 8, 5), some_logits(1, 8, 5)
SMOOTHING = 0.2  # of a recipe

# Every objective that works from logits or from nothing, with arguments that it accepts.
ACCEPTED: dict[type[Objective], dict[str, Any]] = {
    SoftTargets: {
        "temperature": 4.0,
        "alpha": 0.5,
        "weight": 1.0,
        "divergence": "forward",
        "standardize_logits": False,
    },
    HardTargets: {"alpha": 0.5, "label_smoothing": 0.0, "standardize_logits": False},
    VirtualTeacher: {"temperature": 4.0, "alpha": 0.5, "correct_probability": 0.9},
    Decoupled: {
        "temperature": 4.0,
        "target_weight": 1.0,
        "non_target_weight": 8.0,
        "weight": 1.0,
        "warmup_epochs": 0,
        "standardize_logits": False,
    },
    Correlation: {
        "temperature": 4.0,
        "inter_weight": 1.0,
        "intra_weight": 1.0,
        "weight": 1.0,
        "standardize_logits": False,
    },
    CrossEntropy: {"label_smoothing": 0.0},
}
MIXED = (SoftTargets, HardTargets, VirtualTeacher)  # by an alpha
WEIGHTED = (Decoupled, Correlation)  # beside a whole cross-entropy
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


def numpy_term(kind: type[Objective]) -> float:
    """The term of an objective as ACCEPTED describes it, without its weight, written out."""
    log_s, log_t = numpy_log_softmax(STUDENT, 4.0), numpy_log_softmax(TEACHER, 4.0)
    p_s, p_t = np.exp(log_s), np.exp(log_t)
    targets, rows = TARGETS.numpy(), np.arange(8)
    if kind is SoftTargets:
        return float(16 * (p_t * (log_t - log_s)).sum() / 8)
    if kind is HardTargets:
        return numpy_cross_entropy(STUDENT, TEACHER.argmax(axis=1))
    if kind is CrossEntropy:
        return numpy_cross_entropy(STUDENT, targets)
    if kind is VirtualTeacher:
        designed = np.full((8, 5), 0.1 / 4)
        designed[rows, targets] = 0.9
        log_d = numpy_log_softmax(np.log(designed), 4.0)
        return float(16 * (np.exp(log_d) * (log_d - log_s)).sum() / 8)
    if kind is Correlation:
        between = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s, p_t, strict=True)])
        within = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s.T, p_t.T, strict=True)])
        return float(16 * (2 - between - within))
    target_part = non_target_part = 0.0
    for s, t, target in zip(p_s, p_t, targets, strict=True):
        rest_s, rest_t = np.delete(s, target), np.delete(t, target)
        for p, q in ((t[target], s[target]), (rest_t.sum(), rest_s.sum())):
            target_part += p * np.log(p / q) / 8
        rest_s, rest_t = rest_s / rest_s.sum(), rest_t / rest_t.sum()
        non_target_part += float((rest_t * np.log(rest_t / rest_s)).sum() / 8)
    return float(16 * (target_part + 8 * non_target_part))


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_alpha_0_is_cross_entropy_bit_for_bit(kind: type[Objective], label_smoothing: float) -> None:
    loss, gradient = loss_and_gradient(made(kind, alpha=0.0), label_smoothing=label_smoothing)
    expected_loss, expected_gradient = loss_and_gradient(made(CrossEntropy, label_smoothing=label_smoothing))
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient)
    plain = F.cross_entropy(torch.from_numpy(STUDENT).float(), TARGETS, label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_weight_0_is_cross_entropy_bit_for_bit(kind: type[Objective]) -> None:
    loss, gradient = loss_and_gradient(made(kind, weight=0.0), label_smoothing=0.1)
    expected_loss, expected_gradient = loss_and_gradient(made(CrossEntropy, label_smoothing=0.1))
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("kind", [kind for kind in MIXED if kind in ASKS_A_TEACHER])
def test_alpha_0_holds_even_where_the_teacher_is_not_finite(kind: type[Objective]) -> None:
    """0 * inf is nan: the other term must be left out, not multiplied by 0."""
    broken = Outputs(torch.full((8, 5), torch.nan))
    loss, _ = total(made(kind, alpha=0.0)).losses(BATCH, Outputs(torch.from_numpy(STUDENT)), broken)
    assert loss.item() == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy()))


@pytest.mark.parametrize("kind", MIXED)
def test_alpha_1_is_the_distillation_term_alone(kind: type[Objective]) -> None:
    loss, _ = loss_and_gradient(made(kind, alpha=1.0), torch.float64, label_smoothing=SMOOTHING)
    assert loss.item() == pytest.approx(numpy_term(kind), rel=1e-10)


@pytest.mark.parametrize("kind", [SoftTargets, HardTargets])
def test_at_alpha_1_the_targets_play_no_part(kind: type[Objective]) -> None:
    objective = made(kind, alpha=1.0)
    losses = [total(objective).losses(batch, *outputs_for(objective))[0] for batch in (BATCH, OTHER_TARGETS)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_between_the_limits_alpha_weighs_the_distillation_term(kind: type[Objective], alpha: float) -> None:
    loss, _ = loss_and_gradient(made(kind, alpha=alpha), torch.float64)
    task = numpy_cross_entropy(STUDENT, TARGETS.numpy())
    assert loss.item() == pytest.approx((1 - alpha) * task + alpha * numpy_term(kind), rel=1e-10)


def test_the_weight_of_soft_targets_is_a_factor_of_their_term_alone() -> None:
    loss, _ = loss_and_gradient(made(SoftTargets, alpha=0.3, weight=9.0), torch.float64)
    task = numpy_cross_entropy(STUDENT, TARGETS.numpy())
    assert loss.item() == pytest.approx(0.7 * task + 0.3 * 9 * numpy_term(SoftTargets), rel=1e-10)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_a_weighted_term_is_added_to_a_whole_cross_entropy(kind: type[Objective]) -> None:
    loss, _ = loss_and_gradient(made(kind, weight=2.5), torch.float64)
    task = numpy_cross_entropy(STUDENT, TARGETS.numpy())
    assert loss.item() == pytest.approx(task + 2.5 * numpy_term(kind), rel=1e-10)


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize(("limit", "near"), [(0.0, 1e-6), (1.0, 1 - 1e-6)])
def test_the_loss_does_not_jump_at_a_limit_of_alpha(kind: type[Objective], limit: float, near: float) -> None:
    """torchdistill drops temperature^2 at alpha 0: there the loss is 16 times smaller than at 1e-6."""
    at, beside = (loss_and_gradient(made(kind, alpha=alpha), torch.float64) for alpha in (limit, near))
    assert beside[0].item() == pytest.approx(at[0].item(), rel=1e-4)
    assert torch.allclose(beside[1], at[1], atol=1e-5)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_the_loss_does_not_jump_at_weight_0(kind: type[Objective]) -> None:
    at, beside = (loss_and_gradient(made(kind, weight=weight), torch.float64) for weight in (0.0, 1e-8))
    assert beside[0].item() == pytest.approx(at[0].item(), rel=1e-5)
    assert torch.allclose(beside[1], at[1], atol=1e-5)


@pytest.mark.parametrize("kind", [*MIXED, *WEIGHTED])
def test_parts_are_named_and_not_weighted(kind: type[Objective]) -> None:
    task, term = numpy_cross_entropy(STUDENT, TARGETS.numpy()), numpy_term(kind)
    for value in (0.0, 0.3, 1.0):
        name = "alpha" if kind in MIXED else "weight"
        parts = parts_of(made(kind, **{name: value}))
        assert parts == pytest.approx({"cross_entropy": task, "distillation": term})


@pytest.mark.parametrize("kind", [*MIXED, *WEIGHTED])
def test_the_label_smoothing_of_the_recipe_reaches_the_cross_entropy_with_the_targets_and_no_other_part(
    kind: type[Objective],
) -> None:
    parts = parts_of(made(kind), SMOOTHING)
    assert parts["cross_entropy"] == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy(), SMOOTHING))
    assert parts["distillation"] == pytest.approx(numpy_term(kind))


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


@pytest.mark.parametrize("kind", ACCEPTED)
def test_an_objective_says_what_it_asks_of_the_teacher(kind: type[Objective]) -> None:
    assert made(kind).needs == ("logits" if kind in ASKS_A_TEACHER else "nothing")


@pytest.mark.parametrize("path", sorted((config_dir() / "mode").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mode_is_a_final_class_with_one_of_the_three_bases(path: Path) -> None:
    kind: Any = locate(yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"])
    assert sum(issubclass(kind, base) for base in (TargetObjective, LogitObjective, FeatureObjective)) == 1
    assert kind.__final__


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


def test_the_divergence_reaches_the_loss() -> None:
    divergences = ("forward", "reverse", "jensen_shannon")
    losses = {loss_and_gradient(made(SoftTargets, alpha=1.0, divergence=d))[0].item() for d in divergences}
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (SoftTargets, "temperature", 2.0),
        (VirtualTeacher, "temperature", 2.0),
        (VirtualTeacher, "correct_probability", 0.5),
        (Decoupled, "temperature", 2.0),
        (Decoupled, "target_weight", 2.0),
        (Decoupled, "non_target_weight", 2.0),
        (Correlation, "temperature", 2.0),
        (Correlation, "inter_weight", 2.0),
        (Correlation, "intra_weight", 2.0),
    ],
)
def test_each_argument_reaches_the_term(kind: type[Objective], name: str, value: float) -> None:
    assert parts_of(made(kind))["distillation"] != pytest.approx(parts_of(made(kind, **{name: value}))["distillation"])


@pytest.mark.parametrize("kind", ACCEPTED)
def test_no_objective_of_logits_has_parameters_of_its_own(kind: type[Objective]) -> None:
    assert list(made(kind).parameters()) == []
    assert made(kind).state_dict() == {}


@pytest.mark.parametrize("kind", ASKS_A_TEACHER)
def test_no_gradient_reaches_the_teacher(kind: type[Objective]) -> None:
    student, teacher = outputs_for(made(kind))
    assert teacher is not None
    teacher.logits.requires_grad_()
    loss, _ = total(made(kind)).losses(BATCH, student, teacher)
    torch.autograd.backward(loss)
    assert teacher.logits.grad is None


@pytest.mark.parametrize("kind", ACCEPTED)
def test_the_defaults_of_an_objective_stand_in_yaml_alone(kind: type[Objective]) -> None:
    parameters = inspect.signature(kind).parameters
    assert parameters.keys() == ACCEPTED[kind].keys()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters.values())


ABOVE_0 = "a number above 0"
AT_LEAST_0 = "a number of at least 0"
FRACTION = "a number from 0 to 1"
REFUSED: list[tuple[type[Objective], str, object, str, str]] = [
    (SoftTargets, "temperature", 0, "0", ABOVE_0),
    (SoftTargets, "temperature", "4", "4", ABOVE_0),
    (SoftTargets, "temperature", True, "true", ABOVE_0),
    (SoftTargets, "alpha", -0.1, "-0.1", FRACTION),
    (SoftTargets, "alpha", 1.5, "1.5", FRACTION),
    (SoftTargets, "alpha", None, "null", FRACTION),
    (SoftTargets, "weight", -1, "-1", AT_LEAST_0),
    (SoftTargets, "divergence", "kl", "kl", "one of forward, reverse, jensen_shannon"),
    (SoftTargets, "standardize_logits", 1, "1", "true or false"),
    (HardTargets, "alpha", 2, "2", FRACTION),
    (HardTargets, "label_smoothing", -1, "-1", "a number from 0 to below 1"),
    (HardTargets, "standardize_logits", None, "null", "true or false"),
    (VirtualTeacher, "temperature", 0.0, "0.0", ABOVE_0),
    (VirtualTeacher, "alpha", 1.1, "1.1", FRACTION),
    (VirtualTeacher, "correct_probability", 1, "1", "a number between 0 and 1"),
    (VirtualTeacher, "correct_probability", 0.0, "0.0", "a number between 0 and 1"),
    (Decoupled, "temperature", -4, "-4", ABOVE_0),
    (Decoupled, "target_weight", -1, "-1", AT_LEAST_0),
    (Decoupled, "non_target_weight", -1, "-1", AT_LEAST_0),
    (Decoupled, "weight", -1, "-1", AT_LEAST_0),
    (Decoupled, "warmup_epochs", -1, "-1", AT_LEAST_0),
    (Decoupled, "standardize_logits", "yes", "yes", "true or false"),
    (Correlation, "temperature", 0, "0", ABOVE_0),
    (Correlation, "inter_weight", -1, "-1", AT_LEAST_0),
    (Correlation, "intra_weight", -1, "-1", AT_LEAST_0),
    (Correlation, "weight", "2", "2", AT_LEAST_0),
    (Correlation, "standardize_logits", 0, "0", "true or false"),
    (CrossEntropy, "label_smoothing", 1, "1", "a number from 0 to below 1"),
]


@pytest.mark.parametrize(("kind", "name", "value", "shown", "words"), REFUSED)
def test_an_objective_refuses_what_it_cannot_use(
    kind: Callable[..., Objective], name: str, value: object, shown: str, words: str
) -> None:
    assert message_of(made, kind, **{name: value}) == f"{name}={shown} is not accepted\n  write {words}"


def test_every_argument_is_refused_for_something() -> None:
    assert {(kind, name) for kind, name, *_ in REFUSED} == {
        (kind, name) for kind, arguments in ACCEPTED.items() for name in arguments
    }
