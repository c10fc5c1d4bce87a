"""The losses of logits: against NumPy in float64, by hand, at their limits, and what leaves them unchanged."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.data.batches import Batch
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
from distill_run.models.outputs import Outputs
from distill_run.objectives.soft import SoftTargets
from helpers import Array, examples, message_of, numpy_cross_entropy, numpy_log_softmax, refusal, some_logits

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Reference = Callable[[Array, Array, Tensor], float]


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


def numpy_correlation_loss(
    student: Array, teacher: Array, temperature: float, inter_weight: float, intra_weight: float
) -> float:
    p_s, p_t = (np.exp(numpy_log_softmax(logits, temperature)) for logits in (student, teacher))
    between = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s, p_t, strict=True)])
    within = np.mean([np.corrcoef(s, t)[0, 1] for s, t in zip(p_s.T, p_t.T, strict=True)])
    return float(temperature**2 * (inter_weight * (1 - between) + intra_weight * (1 - within)))


def numpy_virtual_teacher(targets: Tensor, num_classes: int, correct_probability: float) -> Array:
    designed = np.full((len(targets), num_classes), (1 - correct_probability) / (num_classes - 1))
    designed[np.arange(len(targets)), targets.numpy()] = correct_probability
    return designed


def soft(temperature: float, divergence: str) -> tuple[Loss, Reference]:
    return (
        lambda student, teacher, _: soft_target_loss(student, teacher, temperature, divergence),
        lambda student, teacher, _: numpy_soft_target_loss(student, teacher, temperature, divergence),
    )


def decoupled(temperature: float, target_weight: float, other_weight: float) -> tuple[Loss, Reference]:
    return (
        lambda student, teacher, targets: decoupled_loss(
            student, teacher, targets, temperature, target_weight, other_weight
        ),
        lambda student, teacher, targets: float(
            numpy_decoupled_loss(student, teacher, targets, temperature, target_weight, other_weight).mean()
        ),
    )


def correlation(temperature: float, *weights: float) -> tuple[Loss, Reference]:
    return (
        lambda student, teacher, _: correlation_loss(student, teacher, temperature, *weights),
        lambda student, teacher, _: numpy_correlation_loss(student, teacher, temperature, *weights),
    )


def virtual(temperature: float, probability: float) -> tuple[Loss, Reference]:
    """The original program softens the teacher alone; the paper, and ours, both."""

    def reference(student: Array, _: Array, targets: Tensor) -> float:
        teacher = np.log(numpy_virtual_teacher(targets, student.shape[1], probability))
        return numpy_soft_target_loss(student, teacher, temperature, "forward")

    return lambda student, _, targets: virtual_teacher_loss(student, targets, temperature, probability), reference


def losses_at(temperature: float) -> dict[str, tuple[Loss, Reference]]:
    """Every loss that takes a temperature, as a function of (student, teacher, targets), with its definition."""
    found = {divergence: soft(temperature, divergence) for divergence in DIVERGENCES}
    for weights in ((1.0, 8.0), (1.0, 0.0), (0.0, 1.0)):
        found[f"decoupled {weights}"] = decoupled(temperature, *weights)
    for weights in ((1.0, 1.0), (2.0, 0.0), (0.0, 3.0)):
        found[f"correlation {weights}"] = correlation(temperature, *weights)
    for probability in (0.3, 0.99):
        found[f"virtual {probability}"] = virtual(temperature, probability)
    return found


def test_each_loss_is_its_definition_in_float32_and_in_float64() -> None:
    for temperature, (num, num_classes) in product((0.5, 1.0, 4.0, 20.0), ((2, 2), (3, 10), (17, 100))):
        (student, teacher), targets = pair(num, num, num_classes, scale=1.0), some_targets(num, num_classes)
        for name, (loss, reference) in losses_at(temperature).items():
            expected = reference(student.numpy(), teacher.numpy(), targets)
            double, single = loss(student, teacher, targets), loss(student.float(), teacher.float(), targets)
            where = f"{name} at temperature {temperature} of {num} x {num_classes}"
            assert double.item() == pytest.approx(expected, rel=1e-8, abs=1e-12), where
            assert single.item() == pytest.approx(expected, rel=1e-3, abs=1e-6 * max(1, temperature**2)), where
            assert (double.shape, double.dtype, single.dtype) == ((), torch.float64, torch.float32), where


@pytest.mark.parametrize("name", losses_at(1.0))
def test_the_gradient_of_the_student_is_the_slope_and_the_teacher_has_none(name: str) -> None:
    for temperature in (0.7, 4.0):
        (student, teacher), targets = pair(9, 3, 4, scale=1.0), some_targets(3, 4)
        loss, _ = losses_at(temperature)[name]
        student.requires_grad_()
        assert torch.autograd.gradcheck(loss, (student, teacher, targets))
        torch.autograd.backward(loss(student, teacher.requires_grad_(), targets))
        assert teacher.grad is None
        assert student.grad is not None


def test_half_precision_logits_are_computed_in_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        (student, teacher), targets = (logits.to(dtype) for logits in pair(31, 8, 100)), some_targets(8, 100)
        losses: dict[str, Loss] = {name: loss for name, (loss, _) in losses_at(4.0).items()}
        losses["cross-entropy"] = lambda logits, _, targets: cross_entropy(logits, targets)
        losses["standardised"] = lambda logits, *_: standardized(logits)
        for name, loss in losses.items():
            narrow = loss(student, teacher, targets)
            assert narrow.dtype == torch.float32, name
            assert torch.equal(narrow, loss(student.float(), teacher.float(), targets)), name


def test_extreme_logits_give_every_loss_a_finite_value_and_a_finite_gradient() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        teacher = torch.tensor([[-1e4, 1e4, 0], [-1e4, 1e4, 1e4], [1e4, 0, -1e4], [0, 0, 0]], dtype=dtype)
        student = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [0, 0, 1], [0, 0, 0]], dtype=dtype)
        student.requires_grad_()
        losses = {
            name: loss(student, teacher, torch.tensor([0, 1, 1, 2])) for name, (loss, _) in losses_at(1.0).items()
        }
        losses["standardised"] = soft_target_loss(standardized(student[:2]), standardized(teacher[:2]), 2.0)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, student, retain_graph=True)
            assert torch.isfinite(loss), name
            assert bool(gradient.isfinite().all()), name


def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient() -> None:
    for temperature in (0.3, 1.0, 7.0):
        teacher = torch.from_numpy(some_logits(3, 8, 10)).float()
        for name, (loss, _) in losses_at(temperature).items():
            if not name.startswith("virtual"):
                student = teacher.clone().requires_grad_()
                value = loss(student, teacher, some_targets(8, 10))
                (gradient,) = torch.autograd.grad(value, student)
                assert value.item() == pytest.approx(0, abs=1e-5 * max(1, temperature**2)), name
                assert gradient.abs().max().item() < 1e-5 * max(temperature, 1), name


@examples
@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)))
def test_the_order_of_a_batch_and_of_the_classes_changes_nothing(seed: int, order: list[int]) -> None:
    (student, teacher), targets = pair(seed, 6, 6, scale=1.0), some_targets(6, 6)
    renamed = torch.tensor(order).argsort()[targets]
    for name, (loss, _) in losses_at(3.0).items():
        before = pytest.approx(loss(student, teacher, targets).item(), rel=1e-6, abs=1e-9)
        assert loss(student[order], teacher[order], targets[order]).item() == before, name
        assert loss(student[:, order], teacher[:, order], renamed).item() == before, name


def test_losses_are_summed_over_classes_and_averaged_over_the_batch() -> None:
    """Other programs use KLDivLoss's reduction="mean", which divides by the number of classes as well."""
    (student, teacher), targets = pair(6, 5, 4), some_targets(5, 4)
    impossible = torch.full((5, 96), -1e4, dtype=torch.float64)  # 96 further classes that neither believes in
    padded = [torch.cat([logits, impossible], 1) for logits in (student, teacher)]
    for name, (loss, _) in losses_at(2.0).items():
        if not name.startswith("correlation"):
            together = loss(student, teacher, targets).item()
            one = [slice(i, i + 1) for i in range(5)]
            alone = [loss(student[i], teacher[i], targets[i]).item() for i in one]
            assert together == pytest.approx(sum(alone) / 5), name
        if not name.startswith(("correlation", "virtual")):
            assert loss(padded[0], padded[1], targets).item() == pytest.approx(together), name


def test_without_reduction_a_loss_has_a_value_for_each_sample() -> None:
    (student, teacher), targets = pair(3, 9, 5), some_targets(9, 5)
    rows = decoupled_loss(student, teacher, targets, 4.0, 1.0, 8.0, reduction="none")
    expected = numpy_decoupled_loss(student.numpy(), teacher.numpy(), targets, 4.0, 1.0, 8.0)
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-9)
    rows = virtual_teacher_loss(student, targets, 4.0, 0.9, reduction="none")
    assert rows.shape == (9,)
    assert rows.mean().item() == pytest.approx(virtual_teacher_loss(student, targets, 4.0, 0.9).item(), rel=1e-9)


def test_each_divergence_of_two_coins_by_hand() -> None:
    """Teacher (0.9, 0.1), student (0.5, 0.5); their mixture is (0.7, 0.3)."""
    expected = {
        "forward": 0.9 * math.log(9 / 5) + 0.1 * math.log(1 / 5),  # 0.3681
        "reverse": 0.5 * math.log(5 / 9) + 0.5 * math.log(5),  # 0.5108
        "jensen_shannon": (
            0.9 * math.log(9 / 7) + 0.1 * math.log(1 / 3) + 0.5 * math.log(5 / 7) + 0.5 * math.log(5 / 3)
        ) / 2,  # 0.1017
    }  # fmt: skip
    student, teacher = two_class_logits(0.5), two_class_logits(0.9)
    for divergence, value in expected.items():
        assert soft_target_loss(student, teacher, 1.0, divergence).item() == pytest.approx(value, abs=1e-12), divergence
    assert kl_divergence(teacher, student).item() == pytest.approx(expected["forward"], abs=1e-12)
    assert soft_target_loss(student, teacher, 1.0).item() == pytest.approx(expected["forward"], abs=1e-12)
    opposite = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    largest = soft_target_loss(opposite, opposite.flip(1), 2.0, "jensen_shannon").item()
    assert largest == pytest.approx(4 * math.log(2), rel=1e-6)


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


def test_at_a_large_temperature_the_loss_matches_centred_logits() -> None:
    """Without the factor temperature^2 it would vanish. Limit: ||centred logit difference||^2 / (2 K)."""
    student, teacher = pair(7, 9, 10)
    difference = (student - teacher).numpy()
    centred = difference - difference.mean(axis=1, keepdims=True)
    limit = (centred**2).sum(axis=1).mean() / (2 * 10)
    for divergence, factor in (("forward", 1), ("reverse", 1), ("jensen_shannon", 1 / 4)):
        loss = soft_target_loss(student, teacher, 1e4, divergence).item()
        assert loss == pytest.approx(factor * limit, rel=2e-3), divergence


@examples
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 500), temperature=st.floats(0.1, 30))
def test_no_divergence_is_negative_and_jensen_shannon_is_symmetric_and_bounded(
    seed: int, scale: float, temperature: float
) -> None:
    student, teacher = pair(seed, 5, 8, scale)
    losses = [soft_target_loss(student, teacher, temperature, divergence).item() for divergence in DIVERGENCES]
    assert min(losses) >= -1e-12 * temperature**2
    swapped = soft_target_loss(teacher, student, temperature, "jensen_shannon").item()
    assert losses[2] == pytest.approx(swapped, rel=1e-9, abs=1e-12)
    assert losses[2] <= temperature**2 * math.log(2) * (1 + 1e-12)


def test_losses_refuse_what_they_cannot_use() -> None:
    (student, teacher), targets = pair(13, 2, 3), some_targets(2, 3)
    for value in (0, -1, math.nan, math.inf, 0.0):
        expected = refusal("temperature", value, "a number above 0")
        assert message_of(soft_target_loss, student, teacher, value) == expected
        assert message_of(decoupled_loss, student, teacher, targets, value, 1.0, 8.0) == expected
        assert message_of(correlation_loss, student, teacher, value, 1.0, 1.0) == expected
    expected = refusal("divergence", "sideways", "one of forward, reverse, jensen_shannon")
    assert message_of(soft_target_loss, student, teacher, 1.0, "sideways") == expected
    for value in (-0.1, 1.0, math.nan):
        expected = refusal("label_smoothing", value, "a number from 0 to below 1")
        assert message_of(hard_target_loss, student, teacher, value) == expected
    for value in (0, 1, -0.5, math.nan):
        expected = refusal("correct_probability", value, "a number between 0 and 1")
        assert message_of(virtual_teacher_loss, student, targets, 2.0, value) == expected


def test_the_hard_target_loss_is_cross_entropy_with_the_teachers_decision() -> None:
    student, teacher = pair(14, 12, 7)
    decisions = teacher.numpy().argmax(axis=1)
    assert not hard_target_loss(student, teacher.clone().requires_grad_()).requires_grad
    for label_smoothing in (0.0, 0.1, 0.9):
        expected = numpy_cross_entropy(student.numpy(), decisions, label_smoothing)
        assert hard_target_loss(student, teacher, label_smoothing).item() == pytest.approx(expected, rel=1e-10)


def test_cross_entropy_is_the_mean_of_the_negative_log_probabilities_of_the_targets() -> None:
    logits, targets = some_logits(17, 9, 5), np.arange(9) % 5
    for label_smoothing in (0.0, 0.2):
        expected = numpy_cross_entropy(logits, targets, label_smoothing)
        loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), label_smoothing)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


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


@pytest.mark.parametrize("change", [900.0, 1e5])
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


def test_certain_opposites_have_the_largest_correlation_loss() -> None:
    certain = torch.tensor([[9.0, -9.0], [-9.0, 9.0]], dtype=torch.float64)
    for temperature in (1.0, 3.0):
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


def test_at_temperature_1_a_virtual_teacher_is_label_smoothing_less_a_constant() -> None:
    """The constant is the entropy of the designed distribution: the gradients are equal."""
    label_smoothing = 0.1
    student, targets = torch.from_numpy(some_logits(29, 9, 5)), some_targets(9, 5)
    correct_probability = 1 - label_smoothing * 4 / 5
    designed = numpy_virtual_teacher(targets, 5, correct_probability)
    entropy = -(designed * np.log(designed)).sum(1).mean()
    smoothed = torch.nn.functional.cross_entropy(student, targets, label_smoothing=label_smoothing).item()
    loss = virtual_teacher_loss(student, targets, 1.0, correct_probability).item()
    assert loss == pytest.approx(smoothed - entropy, rel=1e-9)


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


@examples
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 100))
def test_the_published_program_divides_by_the_deviation_of_a_sample(seed: int, num_classes: int) -> None:
    """The soft targets of NumPy's formulas, with torch's default deviation and the 1e-7 that the program adds."""
    ours, theirs = (some_logits(seed + number, 3, num_classes) for number in (0, 1))

    def z(logits: Array) -> Array:
        result: Array = (logits - logits.mean(1, keepdims=True)) / (logits.std(1, keepdims=True, ddof=1) + 1e-7)
        return result

    student, teacher = (numpy_log_softmax(z(logits), 2.0) for logits in (ours, theirs))
    expected = 4 * (np.exp(teacher) * (teacher - student)).sum() / 3
    soft = SoftTargets(temperature=2.0, alpha=1.0, weight=1.0, divergence="forward", standardize_logits="sample")
    batch = Batch(torch.arange(3), torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64), 0)
    found = soft.term(batch, Outputs(torch.from_numpy(ours)), Outputs(torch.from_numpy(theirs)))
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_logits_without_any_variation_become_0_and_give_a_gradient_of_usual_size() -> None:
    """A last layer that begins with zeros gives such logits; divided by 1e-7, they would throw it far away."""
    for dtype, value in product((torch.float16, torch.float32, torch.float64), (0.0, 5.0, 0.1, -3.3, 1e4)):
        logits = torch.full((2, 7), value, dtype=dtype)
        logits[1] = torch.arange(7)
        logits.requires_grad_()
        result = standardized(logits)
        torch.autograd.backward((result * torch.arange(7)).sum())
        assert result[0].abs().max().item() <= 1e-6 * abs(value)  # what rounding leaves
        assert result[1].std(correction=0).item() == pytest.approx(1, rel=1e-3)
        assert logits.grad is not None
        assert bool((logits.grad.abs() < 10).all())
