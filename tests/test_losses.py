"""The mathematics of distillation against NumPy in float64, numbers by hand, limits and invariants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.losses import DIVERGENCES, cross_entropy, hard_target_loss, kl_divergence, soft_target_loss
from helpers import (
    Array,
    examples,
    message_of,
    numpy_cross_entropy,
    numpy_log_softmax,
    some_logits,
)


def numpy_soft_target_loss(student: Array, teacher: Array, temperature: float, divergence: str) -> float:
    """The definition, row by row: temperature^2 times the mean over the batch of a sum over the classes."""
    log_s, log_t = numpy_log_softmax(student, temperature), numpy_log_softmax(teacher, temperature)
    p_s, p_t = np.exp(log_s), np.exp(log_t)
    middle = (p_s + p_t) / 2
    rows = {
        "forward": (p_t * (log_t - log_s)).sum(axis=1),
        "reverse": (p_s * (log_s - log_t)).sum(axis=1),
        "jensen_shannon": ((p_s * (log_s - np.log(middle))).sum(axis=1) + (p_t * (log_t - np.log(middle))).sum(axis=1))
        / 2,
    }[divergence]
    return float(temperature**2 * rows.sum() / len(rows))


def pair(seed: int, num: int, num_classes: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    student, teacher = (
        some_logits(seed, num, num_classes, scale),
        some_logits(seed + 1, num, num_classes, scale),
    )
    return torch.from_numpy(student), torch.from_numpy(teacher)


def two_class_logits(probability: float) -> Tensor:
    """One row whose softmax is (probability, 1 - probability)."""
    return torch.tensor([[math.log(probability), math.log(1 - probability)]], dtype=torch.float64)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(("num", "num_classes"), [(1, 2), (3, 10), (17, 100)])
def test_the_soft_target_loss_is_its_definition(
    num: int, num_classes: int, temperature: float, divergence: str
) -> None:
    student, teacher = pair(num, num, num_classes)
    expected = numpy_soft_target_loss(student.numpy(), teacher.numpy(), temperature, divergence)
    assert soft_target_loss(student, teacher, temperature, divergence).item() == pytest.approx(expected, rel=1e-10)
    single = soft_target_loss(student.float(), teacher.float(), temperature, divergence)
    assert single.item() == pytest.approx(expected, rel=2e-4)
    assert single.shape == ()


def test_forward_is_the_divergence_unless_another_is_named() -> None:
    student, teacher = pair(0, 4, 5)
    assert torch.equal(soft_target_loss(student, teacher, 4.0), soft_target_loss(student, teacher, 4.0, "forward"))


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        # teacher (0.9, 0.1), student (0.5, 0.5), temperature 1
        ("forward", 0.9 * math.log(9 / 5) + 0.1 * math.log(1 / 5)),  # 0.3681
        ("reverse", 0.5 * math.log(5 / 9) + 0.5 * math.log(5)),  # 0.5108
        # the mixture is (0.7, 0.3)
        (
            "jensen_shannon",
            (0.9 * math.log(9 / 7) + 0.1 * math.log(1 / 3) + 0.5 * math.log(5 / 7) + 0.5 * math.log(5 / 3)) / 2,
        ),  # 0.1017
    ],
)
def test_each_divergence_has_the_direction_of_its_name(divergence: str, expected: float) -> None:
    loss = soft_target_loss(two_class_logits(0.5), two_class_logits(0.9), 1.0, divergence)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_the_three_hand_worked_divergences_differ() -> None:
    values = [soft_target_loss(two_class_logits(0.5), two_class_logits(0.9), 1.0, d).item() for d in DIVERGENCES]
    assert values == pytest.approx([0.368064, 0.510826, 0.101749], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(divergence: str, temperature: float) -> None:
    teacher = torch.from_numpy(some_logits(3, 8, 10)).float()
    student = teacher.clone().requires_grad_()
    loss = soft_target_loss(student, teacher, temperature, divergence)
    torch.autograd.backward(loss)
    assert student.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-6 * temperature**2)
    assert student.grad.abs().max().item() < 1e-6 * max(temperature, 1)


@examples
@given(
    seed=st.integers(0, 10_000),
    shift=st.floats(-50, 50),
    temperature=st.floats(0.5, 20),
    divergence=st.sampled_from(DIVERGENCES),
)
def test_a_constant_added_to_a_row_of_logits_changes_nothing(
    seed: int, shift: float, temperature: float, divergence: str
) -> None:
    student, teacher = pair(seed, 4, 6)
    rows = torch.tensor([[shift], [-shift], [0.0], [2 * shift]], dtype=torch.float64)
    before = soft_target_loss(student, teacher, temperature, divergence).item()
    assert soft_target_loss(student + rows, teacher, temperature, divergence).item() == pytest.approx(before)
    assert soft_target_loss(student, teacher - rows, temperature, divergence).item() == pytest.approx(before)


@examples
@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(range(6)),
    divergence=st.sampled_from(DIVERGENCES),
)
def test_the_order_of_a_batch_and_of_the_classes_changes_nothing(seed: int, order: list[int], divergence: str) -> None:
    student, teacher = pair(seed, 6, 6)
    before = soft_target_loss(student, teacher, 3.0, divergence).item()
    assert soft_target_loss(student[order], teacher[order], 3.0, divergence).item() == pytest.approx(before)
    assert soft_target_loss(student[:, order], teacher[:, order], 3.0, divergence).item() == pytest.approx(before)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_samples(divergence: str) -> None:
    student, teacher = pair(5, 7, 50)
    alone = [soft_target_loss(student[i : i + 1], teacher[i : i + 1], 4.0, divergence).item() for i in range(7)]
    together = soft_target_loss(student, teacher, 4.0, divergence).item()
    assert together == pytest.approx(sum(alone) / 7)
    twice = soft_target_loss(student.repeat(2, 1), teacher.repeat(2, 1), 4.0, divergence).item()
    assert twice == pytest.approx(together)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_classes_are_summed_not_averaged(divergence: str) -> None:
    """Other programs use KLDivLoss's reduction="mean", which divides by the number of classes as well."""
    student, teacher = pair(6, 5, 4)
    impossible = torch.full((5, 96), -1e4, dtype=torch.float64)  # 96 further classes that neither believes in
    padded = soft_target_loss(torch.cat([student, impossible], 1), torch.cat([teacher, impossible], 1), 2.0, divergence)
    assert padded.item() == pytest.approx(soft_target_loss(student, teacher, 2.0, divergence).item())


@pytest.mark.parametrize(("divergence", "factor"), [("forward", 1), ("reverse", 1), ("jensen_shannon", 1 / 4)])
def test_at_a_large_temperature_the_loss_matches_centred_logits(divergence: str, factor: float) -> None:
    """Without the factor temperature^2 it would vanish. Limit: ||centred logit difference||^2 / (2 K)."""
    student, teacher = pair(7, 9, 10)
    difference = (student - teacher).numpy()
    centred = difference - difference.mean(axis=1, keepdims=True)
    limit = (centred**2).sum(axis=1).mean() / (2 * 10)
    loss = soft_target_loss(student, teacher, 1e4, divergence).item()
    assert loss == pytest.approx(factor * limit, rel=2e-3)


def test_the_gradient_is_temperature_times_the_difference_of_the_distributions() -> None:
    """d/dz_s of temperature^2 KL(p_t || p_s), of a mean over the batch: temperature (p_s - p_t) / N."""
    student, teacher = pair(8, 6, 5)
    student.requires_grad_()
    torch.autograd.backward(soft_target_loss(student, teacher, 3.0))
    p_s, p_t = (np.exp(numpy_log_softmax(z.detach().numpy(), 3.0)) for z in (student, teacher))
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), 3.0 * (p_s - p_t) / 6, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_the_gradient_of_the_student_is_the_slope(divergence: str, temperature: float) -> None:
    student, teacher = pair(9, 3, 4)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: soft_target_loss(z, teacher, temperature, divergence), (student,))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_no_gradient_reaches_the_teacher(divergence: str) -> None:
    student, teacher = pair(10, 3, 4)
    student.requires_grad_()
    teacher.requires_grad_()
    torch.autograd.backward(soft_target_loss(student, teacher, 2.0, divergence) + hard_target_loss(student, teacher))
    assert teacher.grad is None
    assert student.grad is not None
    assert bool(student.grad.any())


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_give_a_finite_loss_and_a_finite_gradient(dtype: torch.dtype, divergence: str) -> None:
    student = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [0, 0, 0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0], [-1e4, 1e4, 1e4], [1e4, 0, -1e4]], dtype=dtype)
    loss = soft_target_loss(student, teacher, 1.0, divergence)
    torch.autograd.backward(loss)
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype, divergence: str) -> None:
    student, teacher = (logits.to(dtype) for logits in pair(11, 8, 100))
    targets = torch.arange(8)
    loss = soft_target_loss(student, teacher, 4.0, divergence)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, soft_target_loss(student.float(), teacher.float(), 4.0, divergence))
    assert cross_entropy(student, targets).dtype == torch.float32
    assert torch.equal(cross_entropy(student, targets), cross_entropy(student.float(), targets))


def test_double_logits_stay_double() -> None:
    student, teacher = pair(12, 2, 3)
    assert soft_target_loss(student, teacher, 4.0).dtype == torch.float64


@examples
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 500), temperature=st.floats(0.1, 30))
def test_jensen_shannon_is_symmetric_and_at_most_temperature_squared_times_ln_2(
    seed: int, scale: float, temperature: float
) -> None:
    student, teacher = pair(seed, 5, 8, scale)
    loss = soft_target_loss(student, teacher, temperature, "jensen_shannon").item()
    swapped = soft_target_loss(teacher, student, temperature, "jensen_shannon").item()
    assert loss == pytest.approx(swapped, rel=1e-9, abs=1e-12)
    assert loss <= temperature**2 * math.log(2) * (1 + 1e-12)


def test_jensen_shannon_of_certain_opposites_is_its_bound() -> None:
    opposite = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    loss = soft_target_loss(opposite, opposite.flip(1), 2.0, "jensen_shannon").item()
    assert loss == pytest.approx(4 * math.log(2), rel=1e-6)


@examples
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 100),
    temperature=st.floats(0.1, 30),
    divergence=st.sampled_from(DIVERGENCES),
)
def test_no_divergence_is_negative(seed: int, scale: float, temperature: float, divergence: str) -> None:
    student, teacher = pair(seed, 5, 8, scale)
    assert soft_target_loss(student, teacher, temperature, divergence).item() >= -1e-12 * temperature**2


@pytest.mark.parametrize(
    ("temperature", "shown"), [(0, "0"), (-1, "-1"), (math.nan, "nan"), (math.inf, "inf"), (0.0, "0.0")]
)
def test_a_temperature_that_is_not_a_number_above_0_is_refused(temperature: float, shown: str) -> None:
    student, teacher = pair(13, 2, 3)
    expected = f"temperature={shown} is not accepted\n  write a number above 0"
    assert message_of(soft_target_loss, student, teacher, temperature) == expected


def test_an_unknown_divergence_is_refused() -> None:
    student, teacher = pair(13, 2, 3)
    expected = "divergence=sideways is not accepted\n  write one of forward, reverse, jensen_shannon"
    assert message_of(soft_target_loss, student, teacher, 1.0, "sideways") == expected
    with pytest.raises(ValueError, match="divergence=sideways"):
        soft_target_loss(student, teacher, 1.0, "sideways")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
def test_the_hard_target_loss_is_cross_entropy_with_the_teachers_decision(label_smoothing: float) -> None:
    student, teacher = pair(14, 12, 7)
    decisions = teacher.numpy().argmax(axis=1)
    expected = numpy_cross_entropy(student.numpy(), decisions, label_smoothing)
    assert hard_target_loss(student, teacher, label_smoothing).item() == pytest.approx(expected, rel=1e-10)


def test_the_hard_target_loss_knows_only_the_teachers_decision() -> None:
    student, teacher = pair(15, 12, 7)
    certain = torch.nn.functional.one_hot(teacher.argmax(1), 7) * 1e3
    assert torch.equal(hard_target_loss(student, teacher), hard_target_loss(student, certain))


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, math.nan])
def test_a_label_smoothing_outside_0_to_below_1_is_refused(label_smoothing: float) -> None:
    student, teacher = pair(16, 2, 3)
    expected = f"label_smoothing={label_smoothing} is not accepted\n  write a number from 0 to below 1"
    assert message_of(hard_target_loss, student, teacher, label_smoothing) == expected


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_the_mean_of_the_negative_log_probabilities_of_the_targets(
    label_smoothing: float,
) -> None:
    logits, targets = some_logits(17, 9, 5), np.arange(9) % 5
    expected = numpy_cross_entropy(logits, targets, label_smoothing)
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_kl_divergence_of_two_coins() -> None:
    p, q = two_class_logits(0.75), two_class_logits(0.5)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(p, q).item() == pytest.approx(expected, abs=1e-12)
