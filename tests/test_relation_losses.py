"""Losses that compare the samples of a batch with each other: NumPy in float64, invariants, slopes and memory."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distill_run.losses import relations as relation_losses
from distill_run.losses.relations import angle_loss, distance_loss, probability_loss, similarity_loss
from helpers import Array, few_examples

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "similarity": similarity_loss,
    "distance": distance_loss,
    "angle": angle_loss,
    "probability": probability_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def some_vectors(seed: int, num: int, size: int) -> Array:
    return np.random.default_rng(seed).normal(scale=2.0, size=(num, size))


def some_pair(seed: int, num: int = 6) -> tuple[Tensor, Tensor]:
    """A student's vectors and a teacher's, which have more channels."""
    return torch.from_numpy(some_vectors(seed, num, 3)), torch.from_numpy(some_vectors(seed + 1, num, 5))


def some_rotation(seed: int, size: int) -> Tensor:
    return torch.from_numpy(np.linalg.qr(some_vectors(seed, size, size))[0].copy())


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def numpy_similarity_loss(student: Array, teacher: Array) -> float:
    num, total = len(student), 0.0
    for i in range(num):
        ours, theirs = (np.array([x[i] @ x[j] for j in range(num)]) for x in (student, teacher))
        total += np.sum((ours / np.sqrt(np.sum(ours**2)) - theirs / np.sqrt(np.sum(theirs**2))) ** 2)
    return total / num**2


def numpy_distance_loss(student: Array, teacher: Array) -> float:
    num = len(student)
    pairs = [(i, j) for i in range(num) for j in range(num) if i != j]
    tables = []
    for x in (student, teacher):
        distances = [float(np.sqrt(np.sum((x[i] - x[j]) ** 2))) for i, j in pairs]
        tables.append([distance / (sum(distances) / len(distances)) for distance in distances])
    return sum(huber(ours - theirs) for ours, theirs in zip(*tables, strict=True)) / num**2


def numpy_angle_loss(student: Array, teacher: Array) -> float:
    """At sample i, between the directions to j and to k; all three differ, but for j = k, whose cosine is 1."""
    num, total = len(student), 0.0
    for i, j, k in np.ndindex(num, num, num):
        if i not in (j, k):
            cosines = []
            for x in (student, teacher):
                left, right = x[j] - x[i], x[k] - x[i]
                cosines.append(float(left @ right / np.sqrt((left @ left) * (right @ right))))
            total += huber(cosines[0] - cosines[1])
    return total / num**3


def numpy_probability_loss(student: Array, teacher: Array) -> float:
    num = len(student)
    tables = []
    for x in (student, teacher):
        lengths = np.sqrt(np.sum(x**2, axis=1))
        table = np.array([[(x[i] @ x[j] / lengths[i] / lengths[j] + 1) / 2 for j in range(num)] for i in range(num)])
        tables.append(table / table.sum(axis=1, keepdims=True))
    ours, theirs = tables
    return float(np.mean(theirs * np.log((theirs + 1e-7) / (ours + 1e-7))))


REFERENCES = {
    "similarity": numpy_similarity_loss,
    "distance": numpy_distance_loss,
    "angle": numpy_angle_loss,
    "probability": numpy_probability_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_definition(name: str) -> None:
    for num in (2, 3, 9):
        student, teacher = some_pair(num, num)
        expected = REFERENCES[name](student.numpy(), teacher.numpy())
        loss = LOSSES[name](student, teacher)
        assert (loss.shape, loss.dtype) == ((), torch.float64)
        assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-14)
        single = LOSSES[name](student.float(), teacher.float())
        assert single.item() == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_distances_and_angles_of_three_samples_by_hand() -> None:
    """A right angle with legs of 3 and 4, and an equilateral triangle, whose distances are all their mean."""
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    teacher = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3**0.5]])
    expected = 2 * sum(((side / 4) - 1) ** 2 / 2 for side in (3, 4, 5)) / 9
    assert distance_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    # Each angle is seen twice, (j, k) and (k, j).
    expected = 2 * sum((cosine - 0.5) ** 2 / 2 for cosine in (0, 3 / 5, 4 / 5)) / 27
    assert angle_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_similarities_of_two_samples_by_hand() -> None:
    """Gram matrices ((1, 0), (0, 4)) and ((1, 1), (1, 1)): rows (1, 0), (0, 1) and twice (1, 1) / sqrt 2."""
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [1.0]])
    half = 0.5**0.5
    assert similarity_loss(student, teacher).item() == pytest.approx(2 * ((1 - half) ** 2 + half**2) / 4, rel=1e-6)


def test_neighbours_of_two_samples_by_hand() -> None:
    """Orthogonal: likeness (1, 1/2), probabilities (2/3, 1/3). Opposite: (1, 0)."""
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [-3.0]])
    assert probability_loss(student, teacher).item() == pytest.approx(2 * np.log(3 / 2) / 4, rel=1e-5)


def test_maps_are_flattened() -> None:
    student, teacher = torch.rand(4, 2, 3, 3), torch.rand(4, 5, 2, 2)
    for loss in LOSSES.values():
        assert torch.equal(loss(student, teacher), loss(student.flatten(1), teacher.flatten(1)))


@every_loss
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(loss: Loss) -> None:
    teacher = torch.from_numpy(some_vectors(0, 7, 4))
    value, gradient = gradient_of(loss, teacher, teacher)
    assert value.item() == 0
    assert gradient.abs().max().item() < 1e-8  # the floor of the probabilities moves their best by 1e-7


@every_loss
@few_examples
@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)))
def test_the_order_of_a_batch_changes_nothing(loss: Loss, seed: int, order: list[int]) -> None:
    student, teacher = some_pair(seed)
    assert loss(student[order], teacher[order]).item() == pytest.approx(loss(student, teacher).item(), rel=1e-9)


@every_loss
@few_examples
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_scale_and_rotation_of_the_features_change_nothing(loss: Loss, seed: int, scale: float) -> None:
    student, teacher = some_pair(seed)
    changed = scale * student @ some_rotation(seed + 2, 3)
    assert loss(changed, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-8)
    wider = torch.nn.functional.pad(teacher, (0, 4)) @ some_rotation(seed + 3, 9) / scale
    assert loss(student, wider).item() == pytest.approx(loss(student, teacher).item(), rel=1e-8)


def test_only_distances_and_angles_are_free_of_the_origin_and_probabilities_of_the_length_of_each_sample() -> None:
    """The student's embeddings must not be normalised before their distances are taken, as another program does."""
    student, teacher = some_pair(1)
    for name, loss in LOSSES.items():
        before = pytest.approx(loss(student, teacher).item(), rel=1e-9)
        shifted = loss(student + torch.tensor([5.0, -3.0, 2.0]), teacher).item()
        stretched = loss(student * torch.arange(1, 7).unsqueeze(1), teacher).item()
        assert (shifted == before) == (name in ("distance", "angle")), name
        assert (stretched == before) == (name == "probability"), name


@every_loss
def test_the_gradient_of_the_student_is_the_slope(loss: Loss) -> None:
    student, teacher = some_pair(3, 5)
    assert torch.autograd.gradcheck(lambda vectors: loss(vectors, teacher), (student.requires_grad_(),))


@every_loss
def test_no_gradient_reaches_the_teacher(loss: Loss) -> None:
    student, teacher = (vectors.requires_grad_() for vectors in some_pair(4))
    torch.autograd.backward(loss(student, teacher))
    assert teacher.grad is None
    assert student.grad is not None
    assert bool(student.grad.any(dim=1).all())


@every_loss
def test_half_precision_features_are_computed_in_float32(loss: Loss) -> None:
    """300 squared is beyond float16."""
    for dtype in (torch.float16, torch.bfloat16):
        student, teacher = (150 * vectors.to(dtype) for vectors in some_pair(5))
        result = loss(student, teacher)
        assert result.dtype == torch.float32
        assert torch.isfinite(result)
        assert torch.equal(result, loss(student.float(), teacher.float()))


def gradient_of(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = loss(student, teacher)
    torch.autograd.backward(value)
    assert student.grad is not None
    return value.detach(), student.grad


def test_a_batch_of_one_image_has_no_loss_and_no_gradient() -> None:
    student, teacher = some_pair(7, 1)
    for name, loss in LOSSES.items():
        value, gradient = gradient_of(loss, student.float(), teacher.float())
        assert value.item() == pytest.approx(0, abs=1e-7), name
        assert gradient.abs().max().item() < 1e-6, name


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_two_images_have_one_distance_and_no_angle(loss: Loss) -> None:
    student, teacher = some_pair(8, 2)
    value, gradient = gradient_of(loss, student, teacher)
    assert value.item() == 0
    assert gradient.abs().max().item() < 1e-12


@every_loss
def test_a_student_to_which_all_images_are_one_has_a_finite_loss_and_gradient(loss: Loss) -> None:
    for num, place in product((2, 5), (torch.ones(3), torch.zeros(3))):
        value, gradient = gradient_of(loss, place.repeat(num, 1), some_pair(9, num)[1].float())
        assert torch.isfinite(value)
        assert gradient.abs().max().item() < 10


@every_loss
def test_two_images_that_coincide_give_a_finite_and_moderate_gradient(loss: Loss) -> None:
    """F.normalize, or a square root with 1e-12 under it, would give one of up to 1e12."""
    for distance in (0.0, 1e-30):
        student, teacher = (vectors.float() for vectors in some_pair(10))
        student[1] = student[0] + distance
        student[2] = distance  # a dead sample: all zeros
        assert bool(gradient_of(loss, student, teacher)[1][3:].any(dim=1).all())
        for ours, theirs in ((student, teacher), (teacher, student)):
            value, gradient = gradient_of(loss, ours, theirs)
            assert torch.isfinite(value)
            assert gradient.abs().max().item() < 10


def test_samples_that_coincide_count_in_the_mean_distance() -> None:
    """0, 0 and 1: the six ordered pairs have distances 0, 0 and four times 1, so their mean is 2/3."""
    student, teacher = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0, 0], [1, 0], [0.5, 0.75**0.5]])
    expected = (2 * huber(0 - 1) + 4 * huber(1.5 - 1)) / 9
    assert distance_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_distances_of_long_vectors_keep_their_digits() -> None:
    """|a|^2 + |b|^2 - 2ab is 0 or worse in float32 where the vectors are 1000 times as long as their difference."""
    student, teacher = some_pair(11)
    far = (student + 2000).float()
    assert distance_loss(far, teacher.float()).item() == pytest.approx(
        distance_loss(far.double(), teacher).item(), rel=1e-3
    )


def test_the_rounding_of_opposite_directions_takes_no_logarithm_of_a_negative_number() -> None:
    """Their cosine comes out as -1 - 2e-7 now and then, which is more than the floor of 1e-7 makes good."""
    teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    for seed in range(100):
        direction = torch.randn(1, 8192, generator=torch.Generator().manual_seed(seed))
        value, gradient = gradient_of(probability_loss, torch.cat([direction, -1.7 * direction]), teacher)
        assert torch.isfinite(value)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
@pytest.mark.parametrize("numbers", [1, 100, 300])
def test_portions_give_the_same_loss_and_gradient(loss: Loss, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = some_pair(12, 11)
    whole = gradient_of(loss, student, teacher)
    monkeypatch.setattr(relation_losses, "PORTION", numbers)
    portions = gradient_of(loss, student, teacher)
    torch.testing.assert_close(portions, whole, rtol=1e-10, atol=1e-14)
    assert torch.autograd.gradcheck(lambda vectors: loss(vectors, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_portions_keep_nothing_of_cubic_size_for_the_backward_pass(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = some_pair(13, 24)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(student.requires_grad_(), teacher)
        assert max(kept) >= 24 * 24 * 3  # a small batch keeps everything
        monkeypatch.setattr(relation_losses, "PORTION", 2000)
        kept.clear()
        loss(student, teacher)
    assert max(kept) <= 24 * 24
