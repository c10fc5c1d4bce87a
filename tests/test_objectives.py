"""What the student minimises: the mix of both terms, its limits, its named parts and what it refuses."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.objectives.base import Objective, Outputs, mix
from distill_run.objectives.hard import HardTargets
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from helpers import message_of, numpy_cross_entropy, numpy_log_softmax, some_logits

TARGETS = torch.tensor([0, 3, 3, 1, 2, 0, 4, 4])
BATCH = Batch(torch.arange(8), torch.zeros(8, 1, 2, 2), TARGETS, view=0)
STUDENT, TEACHER = some_logits(0, 8, 5), some_logits(1, 8, 5)


def soft(alpha: float, divergence: str = "forward", label_smoothing: float = 0.0) -> Objective:
    return SoftTargets(temperature=4.0, alpha=alpha, divergence=divergence, label_smoothing=label_smoothing)


def hard(alpha: float, label_smoothing: float = 0.0) -> Objective:
    return HardTargets(alpha=alpha, label_smoothing=label_smoothing)


def loss_and_gradient(objective: Objective, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    student = torch.from_numpy(STUDENT).to(dtype).requires_grad_()
    teacher = None if objective.needs == "nothing" else Outputs(torch.from_numpy(TEACHER).to(dtype))
    loss, _ = objective.losses(BATCH, Outputs(student), teacher)
    torch.autograd.backward(loss)
    assert student.grad is not None
    return loss.detach(), student.grad


def numpy_terms(temperature: float) -> tuple[float, float, float]:
    """Cross-entropy with the targets, the soft term and cross-entropy with the teacher's argmax."""
    log_s, log_t = numpy_log_softmax(STUDENT, temperature), numpy_log_softmax(TEACHER, temperature)
    distance = (np.exp(log_t) * (log_t - log_s)).sum() / len(STUDENT)
    return (
        numpy_cross_entropy(STUDENT, TARGETS.numpy()),
        float(temperature**2 * distance),
        numpy_cross_entropy(STUDENT, TEACHER.argmax(axis=1)),
    )


@pytest.mark.parametrize("make", [soft, hard])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_alpha_0_is_cross_entropy_bit_for_bit(make: Callable[..., Objective], label_smoothing: float) -> None:
    loss, gradient = loss_and_gradient(make(0.0, label_smoothing=label_smoothing))
    expected_loss, expected_gradient = loss_and_gradient(CrossEntropy(label_smoothing=label_smoothing))
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("make", [soft, hard])
def test_alpha_0_holds_even_where_the_teacher_is_not_finite(make: Callable[[float], Objective]) -> None:
    """0 * inf is nan: the other term must be left out, not multiplied by 0."""
    broken = Outputs(torch.full((8, 5), torch.nan))
    loss, _ = make(0.0).losses(BATCH, Outputs(torch.from_numpy(STUDENT)), broken)
    assert loss.item() == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy()))


@pytest.mark.parametrize(("make", "place"), [(soft, 1), (hard, 2)])
def test_alpha_1_is_the_distillation_term_alone(make: Callable[[float], Objective], place: int) -> None:
    loss, _ = loss_and_gradient(make(1.0), torch.float64)
    assert loss.item() == pytest.approx(numpy_terms(4.0)[place], rel=1e-10)
    other_targets = Batch(BATCH.indices, BATCH.images, 4 - TARGETS, view=0)
    outputs = Outputs(torch.from_numpy(STUDENT)), Outputs(torch.from_numpy(TEACHER))
    assert torch.equal(make(1.0).losses(other_targets, *outputs)[0], loss)


@pytest.mark.parametrize(("make", "place"), [(soft, 1), (hard, 2)])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_between_the_limits_alpha_weighs_the_distillation_term(
    make: Callable[[float], Objective], place: int, alpha: float
) -> None:
    terms = numpy_terms(4.0)
    loss, _ = loss_and_gradient(make(alpha), torch.float64)
    assert loss.item() == pytest.approx((1 - alpha) * terms[0] + alpha * terms[place], rel=1e-10)


@pytest.mark.parametrize("make", [soft, hard])
@pytest.mark.parametrize(("limit", "near"), [(0.0, 1e-6), (1.0, 1 - 1e-6)])
def test_the_loss_does_not_jump_at_a_limit_of_alpha(
    make: Callable[[float], Objective], limit: float, near: float
) -> None:
    """torchdistill drops temperature^2 at alpha 0: there the loss is 16 times smaller than at 1e-6."""
    at, beside = (loss_and_gradient(make(alpha), torch.float64) for alpha in (limit, near))
    assert beside[0].item() == pytest.approx(at[0].item(), rel=1e-4)
    assert torch.allclose(beside[1], at[1], atol=1e-5)


def test_the_parts_of_the_soft_objective_are_named_and_not_weighted() -> None:
    outputs = Outputs(torch.from_numpy(STUDENT)), Outputs(torch.from_numpy(TEACHER))
    for alpha in (0.0, 0.3, 1.0):
        _, parts = soft(alpha).losses(BATCH, *outputs)
        task, distillation, _ = numpy_terms(4.0)
        assert {name: part.item() for name, part in parts.items()} == pytest.approx(
            {"cross_entropy": task, "distillation": distillation}
        )


def test_the_parts_of_the_hard_objective_are_named_and_not_weighted() -> None:
    outputs = Outputs(torch.from_numpy(STUDENT)), Outputs(torch.from_numpy(TEACHER))
    _, parts = hard(0.3).losses(BATCH, *outputs)
    task, _, distillation = numpy_terms(4.0)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"cross_entropy": task, "distillation": distillation}
    )


def test_cross_entropy_alone_asks_nothing_of_a_teacher_and_names_its_part() -> None:
    objective = CrossEntropy(label_smoothing=0.2)
    loss, parts = objective.losses(BATCH, Outputs(torch.from_numpy(STUDENT)), None)
    assert objective.needs == "nothing"
    assert loss.item() == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy(), 0.2))
    assert parts.keys() == {"cross_entropy"}


def test_the_label_smoothing_of_the_soft_objective_is_that_of_the_cross_entropy_alone() -> None:
    outputs = Outputs(torch.from_numpy(STUDENT)), Outputs(torch.from_numpy(TEACHER))
    _, parts = soft(0.5, label_smoothing=0.2).losses(BATCH, *outputs)
    assert parts["cross_entropy"].item() == pytest.approx(numpy_cross_entropy(STUDENT, TARGETS.numpy(), 0.2))
    assert parts["distillation"].item() == pytest.approx(numpy_terms(4.0)[1])


def test_the_divergence_reaches_the_loss() -> None:
    losses = {d: loss_and_gradient(soft(1.0, d))[0].item() for d in ("forward", "reverse", "jensen_shannon")}
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("objective", [soft(0.5), hard(0.5), CrossEntropy(label_smoothing=0.0)])
def test_no_objective_has_parameters_of_its_own(objective: Objective) -> None:
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}


@pytest.mark.parametrize("objective_class", [SoftTargets, HardTargets, CrossEntropy])
def test_the_defaults_of_an_objective_stand_in_yaml_alone(objective_class: type[Objective]) -> None:
    parameters = inspect.signature(objective_class).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature=0 is not accepted\n  write a number above 0"),
        ({"temperature": "4"}, "temperature=4 is not accepted\n  write a number above 0"),
        ({"temperature": True}, "temperature=true is not accepted\n  write a number above 0"),
        ({"alpha": -0.1}, "alpha=-0.1 is not accepted\n  write a number from 0 to 1"),
        ({"alpha": 1.5}, "alpha=1.5 is not accepted\n  write a number from 0 to 1"),
        ({"alpha": None}, "alpha=null is not accepted\n  write a number from 0 to 1"),
        (
            {"divergence": "kl"},
            "divergence=kl is not accepted\n  write one of forward, reverse, jensen_shannon",
        ),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is not accepted\n  write a number from 0 to below 1"),
    ],
)
def test_the_soft_objective_refuses_what_it_cannot_use(changes: dict[str, object], message: str) -> None:
    accepted = {"temperature": 4.0, "alpha": 0.5, "divergence": "forward", "label_smoothing": 0.0}
    assert message_of(SoftTargets, **{**accepted, **changes}) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 2}, "alpha=2 is not accepted\n  write a number from 0 to 1"),
        ({"label_smoothing": -1}, "label_smoothing=-1 is not accepted\n  write a number from 0 to below 1"),
    ],
)
def test_the_hard_objective_refuses_what_it_cannot_use(changes: dict[str, object], message: str) -> None:
    assert message_of(HardTargets, **{"alpha": 0.5, "label_smoothing": 0.0, **changes}) == message


def test_cross_entropy_alone_refuses_a_label_smoothing_of_1() -> None:
    message = "label_smoothing=1 is not accepted\n  write a number from 0 to below 1"
    assert message_of(CrossEntropy, label_smoothing=1) == message


def test_the_mix_of_two_numbers() -> None:
    two, ten = torch.tensor(2.0), torch.tensor(10.0)
    assert [mix(two, ten, alpha)[0].item() for alpha in (0, 0.25, 1)] == [2.0, 4.0, 10.0]
