"""ReviewKD: its loss and its fusions against loops in NumPy's float64, the shapes that it pairs, what it refuses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.losses.features import hierarchical_context_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Pair
from distill_run.objectives.review_kd import Fusion, Review
from distill_run.objectives.total import TotalLoss
from helpers import Array, few_examples

Shape = tuple[int, ...]

ARGUMENTS: dict[str, Any] = {
    "weight": 5.0,
    "student_points": ["stages", "pooled"],
    "teacher_points": ["stages_preact", "pooled"],
    "mid_channels": 512,
    "warmup_epochs": 20,
}
BATCH = Batch(torch.arange(3), torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]), view=0)
# Shallow to deep: equal sizes, a smaller student, a larger one, a map that is not square, vectors.
STUDENT: list[Shape] = [(2, 8, 8), (3, 4, 4), (4, 4, 6), (5,)]
TEACHER: list[Shape] = [(3, 8, 8), (2, 8, 8), (6, 2, 3), (7,)]


def fitted(student: list[Shape], teacher: list[Shape], seed: int = 0, **changes: Any) -> Review:
    """The objective for features of some shapes, with points named after their places, in float64."""
    objective = Review(**{**ARGUMENTS, **changes})
    objective.student_points = [f"s{place}" for place in range(len(student))]
    objective.teacher_points = [f"t{place}" for place in range(len(teacher))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective.fit_to(Pair(student, teacher, BATCH.targets, 2, seed))
    return objective.double()


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def features_of(letter: str, shapes: list[Shape], num: int = 3) -> dict[str, Tensor]:
    return {f"{letter}{place}": some(place + ord(letter), num, *shape) for place, shape in enumerate(shapes)}


def outputs_of(features: dict[str, Tensor]) -> Outputs:
    return Outputs(torch.zeros(3, 2, dtype=torch.float64), features)


def term(objective: Review, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    return objective.term(BATCH, outputs_of(student), outputs_of(teacher))


def numpy_of(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def numpy_pooled(maps: Array, size: int) -> Array:
    """Means over `size` x `size` patches, which share a row or a column where the map cannot be divided evenly."""
    num, channels, height, width = maps.shape
    pooled = np.empty((num, channels, size, size))
    for row in range(size):
        for column in range(size):
            rows = slice(row * height // size, math.ceil((row + 1) * height / size))
            columns = slice(column * width // size, math.ceil((column + 1) * width / size))
            pooled[:, :, row, column] = maps[:, :, rows, columns].mean(axis=(2, 3))
    return pooled


def numpy_context_loss(student: Array, teacher: Array) -> float:
    terms, weights, weight = [((student - teacher) ** 2).mean()], [1.0], 1.0
    for size in (4, 2, 1):
        if size < min(student.shape[2:]):
            weight /= 2
            terms.append(((numpy_pooled(student, size) - numpy_pooled(teacher, size)) ** 2).mean())
            weights.append(weight)
    return float(np.dot(weights, terms) / sum(weights))


def numpy_nearest(maps: Array, height: int, width: int) -> Array:
    """Each position takes the value of the position of the other size that its corner falls on."""
    rows = [row * maps.shape[2] // height for row in range(height)]
    columns = [column * maps.shape[3] // width for column in range(width)]
    return maps[:, :, rows][:, :, :, columns]


def numpy_convolution(maps: Array, kernel: Array, bias: Array | float = 0.0) -> Array:
    """A convolution that keeps the size, with zeros around the map, summed offset by offset."""
    reach = kernel.shape[2] // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((len(maps), len(kernel), *maps.shape[2:]))
    for down in range(kernel.shape[2]):
        for right in range(kernel.shape[3]):
            window = padded[:, :, down : down + maps.shape[2], right : right + maps.shape[3]]
            result += np.einsum("oc,nchw->nohw", kernel[:, :, down, right], window)
    result += np.reshape(bias, (1, -1, 1, 1))
    return result


def numpy_layers(maps: Array, layers: nn.Sequential) -> Array:
    """A convolution without bias and a batch norm in training mode."""
    convolution, norm = layers
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert convolution.bias is None
    raw = numpy_convolution(maps, numpy_of(convolution.weight))
    centred = raw - raw.mean(axis=(0, 2, 3), keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    weight, bias = (numpy_of(each).reshape(1, -1, 1, 1) for each in (norm.weight, norm.bias))
    result: Array = scaled * weight + bias
    return result


def numpy_fusion(fusion: nn.Module, maps: Array, left: Array | None, height: int, width: int) -> tuple[Array, Array]:
    assert isinstance(fusion, Fusion)
    fused = numpy_layers(maps, fusion.reduce)
    if left is not None:
        assert fusion.attend is not None
        attention = fusion.attend[0]
        assert isinstance(attention, nn.Conv2d)
        assert attention.bias is not None
        deeper = numpy_nearest(left, *fused.shape[2:])
        both = np.concatenate([fused, deeper], axis=1)
        weights = 1 / (1 + np.exp(-numpy_convolution(both, numpy_of(attention.weight), numpy_of(attention.bias))))
        fused = fused * weights[:, [0]] + deeper * weights[:, [1]]
    fused = numpy_nearest(fused, height, width)
    return numpy_layers(fused, fusion.expand), fused


def numpy_term(objective: Review, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> float:
    total, left = 0.0, None
    for place in reversed(range(len(student))):
        ours, theirs = numpy_of(student[f"s{place}"]), numpy_of(teacher[f"t{place}"])
        ours, theirs = (each if each.ndim == 4 else each[:, :, None, None] for each in (ours, theirs))
        compared, left = numpy_fusion(objective.fusions[place], ours, left, *theirs.shape[2:])
        total += numpy_context_loss(compared, theirs)
    return total


def vary(objective: nn.Module) -> None:
    """Let no weight of a batch norm be 1 and no bias 0, so that none can be left out unnoticed."""
    with torch.no_grad():
        for place, parameter in enumerate(objective.parameters()):
            parameter.add_(0.3 * some(place, *parameter.shape))


def test_the_hierarchical_context_loss_is_its_definition() -> None:
    for size in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (8, 8), (3, 8), (8, 2), (1, 6)):
        student, teacher = some(0, 2, 3, *size), some(1, 2, 3, *size)
        expected = numpy_context_loss(student.numpy(), teacher.numpy())
        assert hierarchical_context_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12), size


def test_the_loss_of_one_different_position_is_that_by_hand() -> None:
    """The difference is 1 in one position and 0 elsewhere: its patch differs by 1 / (positions of a patch)."""
    for size, expected in (
        (1, 1.0),
        (2, (1 / 4 + 1 / 2 * 1 / 16) / (1 + 1 / 2)),
        (4, (1 / 16 + 1 / 2 * (1 / 4) ** 2 / 4 + 1 / 4 * (1 / 16) ** 2) / (1 + 1 / 2 + 1 / 4)),
    ):
        student, teacher = torch.zeros(1, 1, size, size), torch.zeros(1, 1, size, size)
        teacher[0, 0, 0, -1] = 1
        assert hierarchical_context_loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@few_examples
@given(height=st.integers(1, 9), width=st.integers(1, 9), shift=st.floats(-3, 3))
def test_a_constant_difference_costs_its_square_at_any_size_and_equal_maps_nothing(
    height: int, width: int, shift: float
) -> None:
    """So the weights of the levels that a size has sum to 1."""
    maps = some(0, 2, 3, height, width)
    assert hierarchical_context_loss(maps, maps).item() == 0
    assert hierarchical_context_loss(maps + shift, maps).item() == pytest.approx(shift**2, rel=1e-9, abs=1e-12)


def test_the_gradient_of_the_loss_is_the_slope() -> None:
    student, teacher = some(0, 2, 2, 5, 5).requires_grad_(), some(1, 2, 2, 5, 5)
    assert torch.autograd.gradcheck(hierarchical_context_loss, (student, teacher))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (STUDENT, TEACHER),
        (STUDENT[:3], TEACHER[:3]),
        ([(3, 2, 2), (4,)], [(5, 8, 8), (2, 3, 3)]),
        ([(6, 2, 2)], [(3, 2, 2)]),
    ],
)
def test_the_term_is_its_definition(student: list[Shape], teacher: list[Shape]) -> None:
    objective = fitted(student, teacher)
    vary(objective)
    ours, theirs = features_of("s", student), features_of("t", teacher)
    expected = numpy_term(objective, ours, theirs)
    loss = term(objective, ours, theirs)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert loss.shape == ()


def test_the_gradient_of_a_fusion_is_the_slope() -> None:
    torch.manual_seed(0)
    fusion = Fusion(2, 3, 2, is_deepest=False).double()
    maps, left = some(0, 2, 2, 2, 2).requires_grad_(), some(1, 2, 3, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: fusion(*given, torch.Size([4, 4])), (maps, left))


def test_gradients_reach_the_student_and_every_parameter_but_not_the_teacher() -> None:
    objective = fitted(STUDENT, TEACHER)
    ours = {name: each.requires_grad_() for name, each in features_of("s", STUDENT).items()}
    theirs = {name: each.requires_grad_() for name, each in features_of("t", TEACHER).items()}
    torch.autograd.backward(term(objective, ours, theirs))
    assert all(each.grad is None for each in theirs.values())
    assert all(each.grad is not None and bool(each.grad.any()) for each in ours.values())
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_the_deeper_features_review_the_shallower_and_not_the_reverse() -> None:
    """What is compared with the teacher's shallowest features depends on the student's deepest."""
    objective = fitted(STUDENT, TEACHER)
    changes = {}
    for teacher_point in ("t0", "t3"):
        ours = {name: each.requires_grad_() for name, each in features_of("s", STUDENT).items()}
        theirs = features_of("t", TEACHER)
        further = {**theirs, teacher_point: theirs[teacher_point] + some(9, *theirs[teacher_point].shape)}
        torch.autograd.backward(term(objective, ours, theirs) - term(objective, ours, further))
        changes[teacher_point] = {
            name for name, each in ours.items() if each.grad is not None and each.grad.abs().max() > 1e-9
        }
    assert changes == {"t0": {"s0", "s1", "s2", "s3"}, "t3": {"s3"}}


def test_the_number_of_parameters_is_that_of_the_published_layers() -> None:
    """resnet56 teaches resnet20: three stages and the pooled features, in 64 channels in the middle."""
    shapes: list[Shape] = [(16, 32, 32), (32, 16, 16), (64, 8, 8), (64,)]
    reduce = sum(channels * 64 + 2 * 64 for channels in (16, 32, 64, 64))
    attend = 3 * (2 * 64 * 2 + 2)
    expand = sum(64 * channels * 9 + 2 * channels for channels in (16, 32, 64, 64))
    objective = fitted(shapes, shapes)
    assert sum(parameter.numel() for parameter in objective.parameters()) == reduce + attend + expand


@pytest.mark.parametrize(("most", "channels"), [(512, 5), (5, 5), (3, 3)])
def test_the_channels_in_the_middle_are_those_of_the_deepest_point_or_the_limit(most: int, channels: int) -> None:
    """Another program reads this key and uses 512 all the same."""
    objective = fitted(STUDENT, TEACHER, mid_channels=most)
    found = {name: value.shape for name, value in objective.named_parameters() if name.endswith("reduce.0.weight")}
    assert {shape[0] for shape in found.values()} == {channels}
    assert len(found) == 4


def test_the_first_weights_are_drawn_for_a_gain_of_1() -> None:
    """kaiming_uniform_ with a = 1: uniform up to sqrt(3 / fan-in)."""
    fusion = fitted([(50, 2, 2)], [(60, 2, 2)]).fusions[0]
    assert isinstance(fusion, Fusion)
    for weight, fan_in in ((fusion.reduce[0].weight, 50), (fusion.expand[0].weight, 50 * 9)):
        assert isinstance(weight, Tensor)
        bound = math.sqrt(3 / fan_in)
        assert 0.99 * bound < weight.abs().max().item() <= bound


@pytest.mark.parametrize(("epoch", "rise"), [(1, 0.05), (10, 0.5), (20, 1.0), (35, 1.0)])
def test_the_weight_rises_over_the_warmup(epoch: int, rise: float) -> None:
    objective = fitted(STUDENT, TEACHER)
    batch = Batch(BATCH.indices, BATCH.images, BATCH.targets, view=0, epoch=epoch)
    outputs = outputs_of(features_of("s", STUDENT)), outputs_of(features_of("t", TEACHER))
    loss, parts = TotalLoss({"distillation": objective}, 0.0).losses(batch, *outputs)
    expected = parts["cross_entropy"] + 5.0 * rise * parts["distillation"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert parts["cross_entropy"].item() == pytest.approx(math.log(2))
    assert parts["distillation"].item() > 0.1


def test_a_student_that_can_give_the_teachers_features_learns_to() -> None:
    objective = fitted([(4, 4, 4), (4,)], [(4, 4, 4), (4,)])
    theirs = features_of("t", [(4, 4, 4), (4,)])
    ours = {name: nn.Parameter(each) for name, each in features_of("s", [(4, 4, 4), (4,)]).items()}
    optimizer = torch.optim.Adam([*ours.values(), *objective.parameters()], lr=0.02)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = term(objective, dict(ours), theirs)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
