"""The mathematics of distillation against NumPy in float64, numbers by hand, limits and invariants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.losses.logits import (
    DIVERGENCES,
    correlation_loss,
    cross_entropy,
    decoupled_loss,
    hard_target_loss,
    kl_divergence,
    soft_target_loss,
    standardized,
    virtual_teacher_loss,
)
from helpers import Array, examples, message_of, numpy_cross_entropy, numpy_log_softmax, some_logits


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
    student, teacher = (some_logits(seed, num, num_classes, scale), some_logits(seed + 1, num, num_classes, scale))
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
@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)), divergence=st.sampled_from(DIVERGENCES))
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
def test_cross_entropy_is_the_mean_of_the_negative_log_probabilities_of_the_targets(label_smoothing: float) -> None:
    logits, targets = some_logits(17, 9, 5), np.arange(9) % 5
    expected = numpy_cross_entropy(logits, targets, label_smoothing)
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_kl_divergence_of_two_coins() -> None:
    p, q = two_class_logits(0.75), two_class_logits(0.5)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(p, q).item() == pytest.approx(expected, abs=1e-12)


def numpy_decoupled_loss(
    student: Array, teacher: Array, targets: Tensor, temperature: float, target_weight: float, non_target_weight: float
) -> Array:
    """Each sample's loss, with probabilities in the place of logarithms."""
    rows = []
    p_s, p_t = (np.exp(numpy_log_softmax(logits, temperature)) for logits in (student, teacher))
    for s, t, target in zip(p_s, p_t, targets.tolist(), strict=True):
        binary_s, binary_t = (np.array([p[target], np.delete(p, target).sum()]) for p in (s, t))
        others_s, others_t = (np.delete(p, target) / np.delete(p, target).sum() for p in (s, t))
        target_part = (binary_t * np.log(binary_t / binary_s)).sum()
        non_target_part = (others_t * np.log(others_t / others_s)).sum()
        rows.append(temperature**2 * (target_weight * target_part + non_target_weight * non_target_part))
    return np.array(rows)


def some_targets(num: int, num_classes: int) -> Tensor:
    return torch.arange(num) * 3 % num_classes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(("num", "num_classes"), [(1, 2), (3, 10), (17, 100)])
@pytest.mark.parametrize("weights", [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
def test_the_decoupled_loss_is_its_definition(
    num: int, num_classes: int, temperature: float, weights: tuple[float, float]
) -> None:
    (student, teacher), targets = pair(num, num, num_classes), some_targets(num, num_classes)
    rows = numpy_decoupled_loss(student.numpy(), teacher.numpy(), targets, temperature, *weights)
    how = targets, temperature, *weights
    assert decoupled_loss(student, teacher, *how).item() == pytest.approx(rows.mean(), rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(decoupled_loss(student, teacher, *how, reduction="none").numpy(), rows, atol=1e-9)
    single = decoupled_loss(student.float(), teacher.float(), *how)
    assert single.item() == pytest.approx(rows.mean(), rel=5e-4, abs=1e-5)
    assert (single.shape, single.dtype) == ((), torch.float32)


def test_both_parts_of_the_decoupled_loss_by_hand() -> None:
    """Target 0; teacher (0.6, 0.3, 0.1): two-way (0.6, 0.4), others (3/4, 1/4). Student (0.5, 0.25, 0.25): 1/2 each."""
    student = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    target = torch.tensor([0])
    target_part = 0.6 * math.log(6 / 5) + 0.4 * math.log(4 / 5)  # 0.0201
    non_target_part = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)  # 0.1308
    assert decoupled_loss(student, teacher, target, 1.0, 1.0, 0.0).item() == pytest.approx(target_part, abs=1e-12)
    assert decoupled_loss(student, teacher, target, 1.0, 0.0, 1.0).item() == pytest.approx(non_target_part, abs=1e-12)
    both = decoupled_loss(student, teacher, target, 1.0, 1.0, 8.0).item()
    assert both == pytest.approx(target_part + 8 * non_target_part, abs=1e-12)


@examples
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.1, 20),
    temperature=st.floats(0.5, 20),
    num_classes=st.integers(2, 12),
)
def test_with_the_weights_1_and_1_minus_p_the_decoupled_loss_is_the_soft_target_loss(
    seed: int, scale: float, temperature: float, num_classes: int
) -> None:
    """Equation 6 of the paper; p, the teacher's probability of the target, is of a sample: a batch of one."""
    student, teacher = pair(seed, 1, num_classes, scale)
    target = torch.tensor([seed % num_classes])
    probability = (teacher / temperature).softmax(1)[0, target].item()
    decoupled = decoupled_loss(student, teacher, target, temperature, 1.0, 1 - probability).item()
    expected = soft_target_loss(student, teacher, temperature).item()
    assert decoupled == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_of_two_classes_only_the_target_part_is_left() -> None:
    student, teacher = pair(20, 6, 2)
    targets = some_targets(6, 2)
    assert decoupled_loss(student, teacher, targets, 3.0, 0.0, 1.0).item() == pytest.approx(0, abs=1e-12)
    expected = soft_target_loss(student, teacher, 3.0).item()
    assert decoupled_loss(student, teacher, targets, 3.0, 1.0, 1.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("change", [-3000.0, 900.0, 3000.0, 1e5])
def test_the_part_of_the_other_classes_does_not_know_the_logits_of_the_target(change: float) -> None:
    """Other programs subtract 1000 from the target's logit instead of leaving it out: above 1000 it counts again."""
    student, teacher = pair(21, 5, 6)
    targets = some_targets(5, 6)
    is_target = torch.nn.functional.one_hot(targets, 6)
    before = decoupled_loss(student, teacher, targets, 1.0, 0.0, 1.0).item()
    for logits in ((student + change * is_target, teacher), (student, teacher + change * is_target)):
        assert decoupled_loss(*logits, targets, 1.0, 0.0, 1.0).item() == pytest.approx(before, rel=1e-8)

    def masked(logits: Tensor) -> Tensor:
        return (logits - 1000 * is_target).log_softmax(1)

    trick = kl_divergence(masked(teacher + change * is_target), masked(student)).item()
    assert (trick == pytest.approx(before)) == (change < 1000)


def test_the_decoupled_loss_is_summed_over_classes_and_averaged_over_the_batch() -> None:
    """mmrazor passes size_average=False beside the reduction, and always sums over the batch."""
    student, teacher = pair(22, 5, 4)
    targets = some_targets(5, 4)
    before = decoupled_loss(student, teacher, targets, 2.0, 1.0, 8.0).item()
    twice = decoupled_loss(student.repeat(2, 1), teacher.repeat(2, 1), targets.repeat(2), 2.0, 1.0, 8.0).item()
    impossible = torch.full((5, 96), -1e4, dtype=torch.float64)  # 96 further classes that neither believes in
    more_student, more_teacher = (torch.cat([logits, impossible], 1) for logits in (student, teacher))
    assert twice == pytest.approx(before)
    assert decoupled_loss(more_student, more_teacher, targets, 2.0, 1.0, 8.0).item() == pytest.approx(before)


@pytest.mark.parametrize("weights", [(1.0, 8.0), (0.0, 1.0), (1.0, 0.0)])
def test_the_gradient_of_the_decoupled_loss_is_the_slope(weights: tuple[float, float]) -> None:
    student, teacher = pair(23, 3, 4)
    targets = some_targets(3, 4)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: decoupled_loss(z, teacher, targets, 4.0, *weights), (student,))


def numpy_correlation_loss(
    student: Array, teacher: Array, temperature: float, inter_weight: float, intra_weight: float
) -> float:
    p_s, p_t = (np.exp(numpy_log_softmax(logits, temperature)) for logits in (student, teacher))
    between = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s, p_t, strict=True)])
    within = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s.T, p_t.T, strict=True)])
    return float(temperature**2 * (inter_weight * (1 - between) + intra_weight * (1 - within)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize(("num", "num_classes"), [(2, 2), (3, 10), (17, 100)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
def test_the_correlation_loss_is_its_definition(
    num: int, num_classes: int, temperature: float, weights: tuple[float, float]
) -> None:
    student, teacher = pair(num, num, num_classes, scale=1.0)
    expected = numpy_correlation_loss(student.numpy(), teacher.numpy(), temperature, *weights)
    assert correlation_loss(student, teacher, temperature, *weights).item() == pytest.approx(expected, rel=1e-8)
    single = correlation_loss(student.float(), teacher.float(), temperature, *weights)
    assert single.item() == pytest.approx(expected, rel=1e-3, abs=1e-6 * temperature**2)
    assert (single.shape, single.dtype) == ((), torch.float32)


@examples
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 5), temperature=st.floats(0.5, 20))
def test_the_correlation_loss_is_0_where_both_agree_and_never_below(
    seed: int, scale: float, temperature: float
) -> None:
    """torchdistill's DIST+ adds a correlation where its distance is meant: the best student has the largest loss."""
    student, teacher = pair(seed, 5, 6, scale)
    bound = 4 * temperature**2
    assert correlation_loss(teacher, teacher, temperature, 1.0, 1.0).item() == pytest.approx(0, abs=1e-12 * bound)
    assert -1e-12 * bound <= correlation_loss(student, teacher, temperature, 1.0, 1.0).item() <= bound


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_certain_opposites_have_the_largest_correlation_loss(temperature: float) -> None:
    certain = torch.tensor([[9.0, -9.0], [-9.0, 9.0]], dtype=torch.float64)
    loss = correlation_loss(certain, certain.flip(1), temperature, 2.0, 3.0).item()
    assert loss == pytest.approx(temperature**2 * 2 * (2.0 + 3.0))


def test_probabilities_that_are_stretched_and_moved_correlate_as_before() -> None:
    """Pearson's correlation is blind to scale and offset: mixing with the uniform distribution costs nothing."""
    _, teacher = pair(24, 6, 5, scale=1.0)
    share = torch.tensor([[0.1], [0.9], [0.5], [0.3], [0.7], [0.2]], dtype=torch.float64)
    even = ((1 - 0.4) * teacher.softmax(1) + 0.4 / 5).log()  # the same of each sample: of each class as well
    uneven = ((1 - share) * teacher.softmax(1) + share / 5).log()
    assert correlation_loss(even, teacher, 1.0, 1.0, 1.0).item() == pytest.approx(0, abs=1e-12)
    assert correlation_loss(uneven, teacher, 1.0, 1.0, 0.0).item() == pytest.approx(0, abs=1e-12)
    assert correlation_loss(uneven, teacher, 1.0, 0.0, 1.0).item() > 0.01
    assert soft_target_loss(even, teacher, 1.0).item() > 0.01


@pytest.mark.parametrize("which", [0, 1])
def test_a_sample_without_any_preference_correlates_with_nothing(which: int) -> None:
    """NumPy gives nan there, and one such row would make the whole loss nan."""
    logits = list(pair(25, 4, 6, scale=1.0))
    expected = numpy_correlation_loss(logits[0][1:].numpy(), logits[1][1:].numpy(), 2.0, 1.0, 0.0)
    logits[which] = logits[which].clone()
    logits[which][0] = 3.0
    student = logits[0].clone().requires_grad_()
    loss = correlation_loss(student, logits[1], 2.0, 1.0, 0.0)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx((3 * expected + 4) / 4)  # 4: temperature^2 * (1 - 0)
    assert student.grad is not None
    assert student.grad.abs().max().item() < 10  # a last layer that begins with zeros gives such rows


def test_a_batch_of_one_has_no_variation_within_a_class() -> None:
    student, teacher = pair(26, 1, 6)
    assert correlation_loss(student, teacher, 2.0, 0.0, 1.0).item() == pytest.approx(4.0)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_the_gradient_of_the_correlation_loss_is_the_slope(weights: tuple[float, float]) -> None:
    student, teacher = pair(27, 3, 4, scale=1.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: correlation_loss(z, teacher, 4.0, *weights), (student,))


def numpy_virtual_teacher(targets: Tensor, num_classes: int, correct_probability: float) -> Array:
    designed = np.full((len(targets), num_classes), (1 - correct_probability) / (num_classes - 1))
    designed[np.arange(len(targets)), targets.numpy()] = correct_probability
    return designed


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize(("num", "num_classes"), [(1, 2), (3, 10), (17, 100)])
@pytest.mark.parametrize("correct_probability", [0.3, 0.9, 0.99])
def test_the_virtual_teacher_loss_is_its_definition(
    num: int, num_classes: int, temperature: float, correct_probability: float
) -> None:
    """The original program softens the teacher alone; the paper, and ours, both."""
    student, targets = some_logits(num, num, num_classes), some_targets(num, num_classes)
    teacher = np.log(numpy_virtual_teacher(targets, num_classes, correct_probability))
    expected = numpy_soft_target_loss(student, teacher, temperature, "forward")
    how = targets, temperature, correct_probability
    assert virtual_teacher_loss(torch.from_numpy(student), *how).item() == pytest.approx(expected, rel=1e-9)
    rows = virtual_teacher_loss(torch.from_numpy(student), *how, reduction="none")
    assert rows.shape == (num,)
    assert rows.mean().item() == pytest.approx(expected, rel=1e-9)
    single = virtual_teacher_loss(torch.from_numpy(student).float(), *how)
    assert single.item() == pytest.approx(expected, rel=5e-4, abs=1e-5)
    assert single.dtype == torch.float32


def test_the_virtual_teacher_loss_by_hand() -> None:
    """Designed (0.8, 0.1, 0.1); at temperature 2 its square roots count, 8^0.5 : 1 : 1. The student is undecided."""
    first, other = 8**0.5 / (8**0.5 + 2), 1 / (8**0.5 + 2)  # 0.5858, 0.2071
    expected = 4 * (first * math.log(3 * first) + 2 * other * math.log(3 * other))  # 0.5318
    loss = virtual_teacher_loss(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0]), 2.0, 0.8)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_a_virtual_teacher_that_is_certain_gives_cross_entropy() -> None:
    student, targets = torch.from_numpy(some_logits(28, 9, 5)), some_targets(9, 5)
    loss = virtual_teacher_loss(student, targets, 1.0, 1 - 1e-12).item()
    assert loss == pytest.approx(numpy_cross_entropy(student.numpy(), targets.numpy()), rel=1e-9)


@pytest.mark.parametrize("label_smoothing", [0.1, 0.5])
def test_at_temperature_1_a_virtual_teacher_is_label_smoothing_less_a_constant(label_smoothing: float) -> None:
    """The constant is the entropy of the designed distribution: the gradients are equal."""
    student, targets = torch.from_numpy(some_logits(29, 9, 5)), some_targets(9, 5)
    correct_probability = 1 - label_smoothing * 4 / 5
    designed = numpy_virtual_teacher(targets, 5, correct_probability)
    entropy = -(designed * np.log(designed)).sum(1).mean()
    smoothed = torch.nn.functional.cross_entropy(student, targets, label_smoothing=label_smoothing).item()
    loss = virtual_teacher_loss(student, targets, 1.0, correct_probability).item()
    assert loss == pytest.approx(smoothed - entropy, rel=1e-9)


def test_the_student_that_is_the_virtual_teacher_has_no_loss() -> None:
    targets = some_targets(6, 4)
    student = torch.from_numpy(np.log(numpy_virtual_teacher(targets, 4, 0.7)))
    assert virtual_teacher_loss(student, targets, 5.0, 0.7).item() == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_the_virtual_teacher_loss_is_the_slope() -> None:
    student, targets = torch.from_numpy(some_logits(30, 3, 4)).requires_grad_(), some_targets(3, 4)
    assert torch.autograd.gradcheck(lambda z: virtual_teacher_loss(z, targets, 20.0, 0.99), (student,))


@pytest.mark.parametrize("value", [0, 1, -0.5, math.nan])
def test_a_correct_probability_outside_0_to_1_is_refused(value: float) -> None:
    expected = f"correct_probability={value} is not accepted\n  write a number between 0 and 1"
    assert message_of(virtual_teacher_loss, torch.zeros(1, 3), torch.tensor([0]), 2.0, value) == expected


def test_cross_entropy_with_smoothed_targets_by_hand() -> None:
    """Of four classes and a smoothing of 0.2 the target is given 0.85, each other 0.05."""
    probabilities = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)
    expected = -(0.85 * math.log(0.7) + 3 * 0.05 * math.log(0.1))
    loss = cross_entropy(probabilities.log(), torch.tensor([0]), 0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert cross_entropy(probabilities.log(), torch.tensor([0]), 0.2, reduction="none").tolist() == [loss.item()]


@examples
@given(
    seed=st.integers(0, 10_000), factor=st.floats(0.01, 100), shift=st.floats(-100, 100), num_classes=st.integers(2, 12)
)
def test_standardized_logits_have_mean_0_and_deviation_1_whatever_their_place_and_scale(
    seed: int, factor: float, shift: float, num_classes: int
) -> None:
    logits = some_logits(seed, 4, num_classes)
    result = standardized(torch.from_numpy(logits)).numpy()
    spread = logits.std(axis=1, keepdims=True)  # of the population, as NumPy's default is
    np.testing.assert_allclose(result, (logits - logits.mean(axis=1, keepdims=True)) / spread, rtol=1e-3)
    np.testing.assert_allclose(result.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(result.std(axis=1), 1, atol=1e-3)
    moved = standardized(torch.from_numpy(factor * logits + shift)).numpy()
    np.testing.assert_allclose(moved, result, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, -3.3, 1e4])
def test_logits_without_any_variation_become_0_and_give_a_gradient_of_usual_size(
    value: float, dtype: torch.dtype
) -> None:
    """A last layer that begins with zeros gives such logits; divided by 1e-7, they would throw it far away."""
    logits = torch.full((2, 7), value, dtype=dtype)
    logits[1] = torch.arange(7)
    logits.requires_grad_()
    result = standardized(logits)
    torch.autograd.backward((result * torch.arange(7)).sum())
    assert result[0].abs().max().item() <= 1e-6 * abs(value)  # what rounding leaves
    assert result[1].std(correction=0).item() == pytest.approx(1, rel=1e-3)
    assert logits.grad is not None
    assert bool((logits.grad.abs() < 10).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_loss_of_logits_is_computed_in_float32(dtype: torch.dtype) -> None:
    (student, teacher), targets = (logits.to(dtype) for logits in pair(31, 8, 100)), some_targets(8, 100)
    wide = student.float(), teacher.float()
    results = [
        (decoupled_loss(s, t, targets, 4.0, 1.0, 8.0), correlation_loss(s, t, 4.0, 1.0, 1.0),
         virtual_teacher_loss(s, targets, 4.0, 0.9), standardized(s))
        for s, t in ((student, teacher), wide)
    ]  # fmt: skip
    for narrow, expected in zip(*results, strict=True):
        assert narrow.dtype == torch.float32
        assert torch.equal(narrow, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_give_every_loss_a_finite_value_and_a_finite_gradient(dtype: torch.dtype) -> None:
    teacher = torch.tensor([[-1e4, 1e4, 0], [-1e4, 1e4, 1e4], [1e4, 0, -1e4], [0, 0, 0]], dtype=dtype)
    targets = torch.tensor([0, 1, 1, 2])
    student = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [0, 0, 1], [1e4, 0, 0]], dtype=dtype, requires_grad=True)
    for loss in (
        decoupled_loss(student, teacher, targets, 1.0, 1.0, 8.0),
        correlation_loss(student, teacher, 1.0, 1.0, 1.0),
        virtual_teacher_loss(student, targets, 1.0, 0.99),
        soft_target_loss(standardized(student[:2]), standardized(teacher[:2]), 2.0),
    ):
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss)
        assert bool(gradient.isfinite().all())


def test_no_loss_lets_a_gradient_reach_the_teacher() -> None:
    student, teacher = pair(32, 3, 4)
    student.requires_grad_()
    teacher.requires_grad_()
    targets = some_targets(3, 4)
    loss = decoupled_loss(student, teacher, targets, 2.0, 1.0, 8.0) + correlation_loss(student, teacher, 2.0, 1.0, 1.0)
    torch.autograd.backward(loss)
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_every_loss_of_two_networks_refuses_a_temperature_that_is_not_above_0(temperature: float) -> None:
    student, teacher = pair(33, 2, 3)
    expected = f"temperature={temperature} is not accepted\n  write a number above 0"
    assert message_of(decoupled_loss, student, teacher, some_targets(2, 3), temperature, 1.0, 8.0) == expected
    assert message_of(correlation_loss, student, teacher, temperature, 1.0, 1.0) == expected
