"""Losses that compare features sample by sample, against NumPy in float64, limits, invariants and slopes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from distill_run.losses.features import attention_loss, hint_loss, meet, variational_loss
from distill_run.losses.numerics import unit_rows
from helpers import Array, few_examples

Loss = Callable[[Tensor, Tensor], Tensor]

SCALES = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
LOSSES: dict[str, Loss] = {
    "hint": hint_loss,
    "attention": lambda student, teacher: attention_loss(student, teacher, 2),
    "variational": lambda student, teacher: variational_loss(student, teacher, SCALES.to(student.dtype)),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def some_maps(seed: int, *shape: int) -> Array:
    """Maps of a normal distribution, so that half of the values are negative."""
    return np.random.default_rng(seed).normal(scale=2.0, size=shape)


def tensors(*arrays: Array) -> list[Tensor]:
    return [torch.from_numpy(array.copy()) for array in arrays]


def numpy_halved(maps: Array) -> Array:
    """The mean of each 2x2 patch."""
    num, channels, height, width = maps.shape
    result: Array = maps.reshape(num, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return result


def numpy_attention(maps: Array, power: int) -> list[Array]:
    """Sample by sample: the mean of |feature|^power over the channels, pixel by pixel, divided by its length."""
    result = []
    for sample in maps:
        energy = np.array([np.mean(np.abs(pixel) ** power) for pixel in sample.reshape(len(sample), -1).T])
        result.append(energy / np.sqrt(np.sum(energy**2)))
    return result


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_the_attention_loss_is_its_definition(power: int) -> None:
    student, teacher = some_maps(0, 5, 3, 4, 2), some_maps(1, 5, 7, 4, 2)
    pairs = zip(numpy_attention(student, power), numpy_attention(teacher, power), strict=True)
    expected = np.mean([np.mean((ours - theirs) ** 2) for ours, theirs in pairs])
    ours, theirs = tensors(student, teacher)
    loss = attention_loss(ours, theirs, power)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    single = attention_loss(ours.float(), theirs.float(), power)
    assert single.item() == pytest.approx(expected, rel=1e-4)


def test_the_attention_loss_of_two_pixels_by_hand() -> None:
    """Energies (9, 16) / 2 and (1, 0): directions (0.4903, 0.8716) and (1, 0)."""
    student = torch.tensor([[[[3.0, 0.0]], [[0.0, -4.0]]]])
    teacher = torch.tensor([[[[-2.0, 0.0]]]])
    first, second = 9 / 337**0.5, 16 / 337**0.5
    assert attention_loss(student, teacher, 2).item() == pytest.approx(((first - 1) ** 2 + second**2) / 2, rel=1e-6)


def test_the_hint_loss_is_a_mean_over_all_elements() -> None:
    student, teacher = some_maps(2, 5, 3, 4, 2), some_maps(3, 5, 3, 4, 2)
    expected = sum((a - b) ** 2 for a, b in zip(student.flat, teacher.flat, strict=True)) / 120
    assert hint_loss(*tensors(student, teacher)).item() == pytest.approx(expected, rel=1e-12)


def test_the_variational_loss_is_a_gaussian_likelihood_of_each_channel() -> None:
    mean, teacher = some_maps(4, 5, 3, 4, 2), some_maps(5, 5, 3, 4, 2)
    variance = np.log1p(np.exp(SCALES.numpy())) + 1e-5
    terms = [
        ((teacher[n, c, h, w] - mean[n, c, h, w]) ** 2 / variance[c] + np.log(variance[c])) / 2
        for n, c, h, w in np.ndindex(5, 3, 4, 2)
    ]
    loss = variational_loss(torch.from_numpy(mean), torch.from_numpy(teacher), SCALES)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-12)
    # The same from SciPy's Gaussian, without its constant.
    density = norm.logpdf(teacher, mean, np.sqrt(variance)[:, None, None])
    assert loss.item() == pytest.approx(-density.mean() - np.log(2 * np.pi) / 2, rel=1e-12)


def test_the_best_variance_is_the_mean_squared_error_of_its_channel() -> None:
    mean, teacher = tensors(some_maps(6, 20, 3, 2, 2), some_maps(7, 20, 3, 2, 2))
    error = (mean - teacher).square().mean((0, 2, 3))
    scale = torch.log(torch.expm1(error - 1e-5)).requires_grad_()
    torch.autograd.backward(variational_loss(mean, teacher, scale))
    assert scale.grad is not None
    assert scale.grad.abs().max().item() < 1e-12


@pytest.mark.parametrize("name", ["hint", "attention"])
@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_the_larger_map_is_pooled_to_the_smaller(name: str, larger: str) -> None:
    large, small = some_maps(8, 3, 3, 4, 8), some_maps(9, 3, 3, 2, 4)
    loss = LOSSES[name]
    expected = loss(*tensors(numpy_halved(large), small)).item()  # both are symmetric in their arguments
    given_maps = tensors(large, small) if larger == "student" else tensors(small, large)
    assert loss(*given_maps).item() == pytest.approx(expected, rel=1e-12)


def test_each_side_of_two_maps_meets_at_the_smaller() -> None:
    left, right = meet(torch.rand(2, 3, 4, 8), torch.rand(2, 5, 8, 2))
    assert (left.shape, right.shape) == ((2, 3, 4, 2), (2, 5, 4, 2))


def test_vectors_are_maps_of_one_pixel() -> None:
    vectors, maps = tensors(some_maps(10, 4, 3), some_maps(11, 4, 3, 2, 2))
    expected = (vectors - maps.mean((2, 3))).square().mean()
    assert hint_loss(vectors, maps).item() == pytest.approx(expected.item(), rel=1e-12)
    assert hint_loss(maps, vectors).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["hint", "attention"])
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(name: str) -> None:
    (teacher,) = tensors(some_maps(12, 4, 3, 4, 4))
    student = teacher.clone().requires_grad_()
    loss = LOSSES[name](student, teacher)
    torch.autograd.backward(loss)
    assert student.grad is not None
    assert loss.item() == 0
    assert student.grad.abs().max().item() == 0


@few_examples
@given(seed=st.integers(0, 10_000), power=st.integers(1, 4), scale=st.floats(1e-2, 1e2))
def test_attention_knows_neither_signs_nor_the_order_of_channels_nor_scale(seed: int, power: int, scale: float) -> None:
    student, teacher = tensors(some_maps(seed, 3, 4, 3, 3), some_maps(seed + 1, 3, 6, 3, 3))
    before = attention_loss(student, teacher, power).item()
    signs = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], size=(3, 4, 3, 3)))
    for changed in (student * signs, student[:, [2, 0, 3, 1]], scale * student):
        assert attention_loss(changed, teacher, power).item() == pytest.approx(before, rel=1e-9, abs=1e-15)
    assert attention_loss(student, -scale * teacher.flip(1), power).item() == pytest.approx(before, rel=1e-9, abs=1e-15)


@every_loss
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_samples(loss: Loss) -> None:
    student, teacher = tensors(some_maps(14, 4, 3, 2, 2), some_maps(15, 4, 3, 2, 2))
    alone = [loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(4)]
    assert loss(student, teacher).item() == pytest.approx(sum(alone) / 4, rel=1e-12)


@every_loss
def test_the_gradient_of_the_student_is_the_slope(loss: Loss) -> None:
    student, teacher = tensors(some_maps(16, 2, 3, 4, 4), some_maps(17, 2, 3, 4, 4))
    assert torch.autograd.gradcheck(lambda maps: loss(maps, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (8, 8)])
def test_the_gradient_of_attention_is_the_slope_whichever_map_is_larger(size: tuple[int, int]) -> None:
    student, teacher = tensors(some_maps(18, 2, 3, 4, 4), some_maps(19, 2, 5, *size))
    for power in (1, 3):
        check = torch.autograd.gradcheck(
            lambda maps, p=power: attention_loss(maps, teacher, p), (student.requires_grad_(),)
        )
        assert check


def test_the_gradient_of_the_scales_is_the_slope() -> None:
    mean, teacher = tensors(some_maps(20, 2, 3, 2, 2), some_maps(21, 2, 3, 2, 2))
    scale = SCALES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: variational_loss(mean, teacher, s), (scale,))


@every_loss
def test_no_gradient_reaches_the_teacher(loss: Loss) -> None:
    student, teacher = tensors(some_maps(22, 2, 3, 2, 2), some_maps(23, 2, 3, 4, 4)[:, :, :2, :2])
    student.requires_grad_()
    teacher.requires_grad_()
    torch.autograd.backward(loss(student, teacher))
    assert teacher.grad is None
    assert student.grad is not None
    assert bool(student.grad.any())


@every_loss
def test_half_precision_features_are_computed_in_float32(loss: Loss) -> None:
    """300 squared is beyond float16."""
    for dtype in (torch.float16, torch.bfloat16):
        maps = tensors(some_maps(24, 2, 3, 4, 4), some_maps(25, 2, 3, 4, 4))
        student, teacher = (150 * each.to(dtype) for each in maps)
        result = loss(student, teacher)
        assert result.dtype == torch.float32
        assert torch.isfinite(result)
        assert result.item() == pytest.approx(loss(student.float(), teacher.float()).item(), rel=1e-6)


@pytest.mark.parametrize(("power", "size"), [(1, 0.0), (2, 1e-30), (2, 0.0), (3, 0.0)])
def test_maps_that_are_dead_give_a_finite_loss_and_a_small_gradient(power: int, size: float) -> None:
    """F.normalize divides by at least 1e-12, and its gradient there is 1e12 times as large as what it is given."""
    student = torch.full((2, 3, 2, 2), size)
    student[0] = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    student[0, :, 0, 0] = 0  # a dead pixel of a living map
    student.requires_grad_()
    loss = attention_loss(student, torch.ones(2, 3, 2, 2), power)
    torch.autograd.backward(loss)
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert bool(student.grad[0].any())
    assert student.grad.abs().max().item() < 10


def test_vectors_of_unit_length_keep_their_direction_and_zeros_stay() -> None:
    rows = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1e-9, 0.0]])
    assert unit_rows(rows).tolist() == [pytest.approx([0.6, -0.8]), [0, 0], pytest.approx([1, 0])]
