"""CRD: its contrast against NumPy in float64 with every negative gathered, its draws, its memories, its refusals."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Pair
from distill_run.objectives.crd import ContrastiveRepresentation
from distill_run.objectives.memory import Memory, Negatives
from helpers import Array, examples, message_of

TARGETS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 0])  # of 12 samples, not evenly of 3 classes
ARGUMENTS: dict[str, Any] = {
    "weight": 0.8,
    "student_points": ["pooled"],
    "teacher_points": ["pooled"],
    "embedding_size": 4,
    "num_negatives": 6,
    "temperature": 0.5,
    "momentum": 0.75,
}


def fitted(
    student: tuple[int, ...] = (3,), teacher: tuple[int, ...] = (5,), seed: int = 7, **changes: Any
) -> ContrastiveRepresentation:
    """The objective for features of two shapes, with initial weights that are a function of the seed, in float64."""
    objective = ContrastiveRepresentation(**{**ARGUMENTS, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective.fit_to(Pair([student], [teacher], TARGETS, 3, seed))
    return objective.double()


def some(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def batch_of(samples: list[int], epoch: int = 1, step: int = 0) -> Batch:
    indices = torch.tensor(samples)
    return Batch(indices, torch.zeros(len(samples), 1, 2, 2), TARGETS[indices], view=0, epoch=epoch, step=step)


def outputs_of(features: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(features), 3), {"pooled": features})


def term(objective: ContrastiveRepresentation, batch: Batch, student: Tensor, teacher: Tensor) -> Tensor:
    return objective.term(batch, outputs_of(student), outputs_of(teacher))


def memory_of(seed: int, num_samples: int, size: int) -> Memory:
    memory = Memory(num_samples, size).double()
    memory.embeddings = F.normalize(some(seed, num_samples, size), dim=1)
    return memory


def draws(seed: int, *shape: int, upto: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, upto, shape))


def numpy_scores(
    anchors: Array, embeddings: Array, samples: NDArray[np.int64], negatives: NDArray[np.int64], temperature: float
) -> Array:
    """exp(similarity / temperature) of each anchor to its sample, in the first column, and to its negatives."""
    scores = np.empty((len(samples), 1 + negatives.shape[1]))
    for row, anchor in enumerate(anchors):
        for column, other in enumerate([samples[row], *negatives[row]]):
            scores[row, column] = math.exp(float(anchor @ embeddings[other]) / temperature)
    return scores


def numpy_contrast(scores: Array, normaliser: float, num_samples: int) -> float:
    """The form of the paper's section 3.1 and of its code, pair by pair."""
    noise, total = (scores.shape[1] - 1) / num_samples, 0.0
    for positive, *negatives in scores / normaliser:
        total -= math.log(positive / (positive + noise))
        total -= sum(math.log(noise / (negative + noise)) for negative in negatives)
    return total / len(scores)


def plain_contrast(
    anchors: Tensor, memory: Memory, samples: Tensor, negatives: Tensor, temperature: float, normaliser: float
) -> Tensor:
    """The same with the embeddings of all negatives gathered, as a tensor that can be derived."""
    rows = memory.embeddings[torch.cat([samples.unsqueeze(1), negatives], dim=1)]
    scores = (torch.einsum("ne,nke->nk", anchors, rows) / temperature).exp() / normaliser
    noise = negatives.shape[1] / len(memory.embeddings)
    positive, others = scores[:, 0], scores[:, 1:]
    return -((positive / (positive + noise)).log() + (noise / (others + noise)).log().sum(1)).mean()


def test_the_contrast_is_its_definition() -> None:
    for temperature, sizes in product((0.07, 0.5, 2.0), ((1, 1, 2), (4, 9, 11), (5, 40, 6))):
        num, num_negatives, num_samples = sizes
        memory, normaliser = memory_of(0, num_samples, 3), math.nan
        for seed in (1, 4):  # Z is estimated from the first batch, and is that of the second as well
            anchors = F.normalize(some(seed, num, 3), dim=1)
            samples = draws(seed + 1, num, upto=num_samples)
            negatives = draws(seed + 2, num, num_negatives, upto=num_samples)
            remembered = memory.embeddings.numpy()
            scores = numpy_scores(anchors.numpy(), remembered, samples.numpy(), negatives.numpy(), temperature)
            if seed == 1:
                normaliser = scores.mean() * num_samples
            expected = numpy_contrast(scores, normaliser, num_samples)
            assert memory.loss(anchors, samples, negatives, temperature).item() == pytest.approx(expected, rel=1e-10)
        assert memory.log_normaliser.exp().item() == pytest.approx(normaliser, rel=1e-10)


def test_the_value_and_the_gradient_are_those_of_gathered_embeddings() -> None:
    memory = memory_of(0, 9, 4)
    samples, negatives = draws(1, 5, upto=9), draws(2, 5, 30, upto=9)
    anchors = F.normalize(some(3, 5, 4), dim=1).requires_grad_()
    loss = memory.loss(anchors, samples, negatives, 0.2)
    plain = plain_contrast(anchors, memory, samples, negatives, 0.2, memory.log_normaliser.exp().item())
    torch.testing.assert_close(loss, plain, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(each, anchors)[0] for each in (loss, plain)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_where_everything_is_alike_an_anchor_is_believed_with_one_over_one_plus_the_negatives() -> None:
    """Then h is 1 / M whatever the temperature, so its probability is (1 / M) / (1 / M + K / M) = 1 / (1 + K)."""
    for num_negatives, num_samples in ((1, 2), (16, 5), (3, 50)):
        memory = Memory(num_samples, 2)
        memory.embeddings = torch.tensor([[0.6, 0.8]]).expand(num_samples, 2)
        negatives = torch.zeros(3, num_negatives, dtype=torch.int64)  # one that is drawn again counts again
        loss = memory.loss(torch.tensor([[1.0, 0.0]] * 3), torch.ones(3, dtype=torch.int64), negatives, 0.07)
        probability = 1 / (1 + num_negatives)
        by_hand = -math.log(probability) - num_negatives * math.log(1 - probability)
        assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_the_gradient_of_the_anchors_is_the_slope() -> None:
    memory = memory_of(0, 7, 3)
    samples, negatives = torch.tensor([2, 5]), draws(1, 2, 5, upto=7)
    anchors = F.normalize(some(2, 2, 3), dim=1).requires_grad_()
    memory.loss(anchors, samples, negatives, 0.3)  # from here on Z is a constant
    assert torch.autograd.gradcheck(lambda each: memory.loss(each, samples, negatives, 0.3), (anchors,))


def test_a_tiny_temperature_gives_a_finite_loss_and_a_finite_gradient() -> None:
    """exp(similarity / temperature) would overflow float32 from a temperature of 1/88 on."""
    memory = Memory(8, 4)
    memory.embeddings = F.normalize(some(0, 8, 4), dim=1).float()
    anchors = memory.embeddings[:3].clone().requires_grad_()
    loss = memory.loss(anchors, torch.arange(3), draws(1, 3, 20, upto=8), 1e-3)
    torch.autograd.backward(loss)
    assert anchors.grad is not None
    assert loss.isfinite()
    assert bool(anchors.grad.isfinite().all())


@pytest.mark.parametrize(
    ("student", "teacher"), [((3,), (5,)), ((3, 2, 4), (5,)), ((3,), (5, 1, 3)), ((3, 2, 2), (5, 4, 4))]
)
def test_the_term_is_the_sum_of_both_contrasts_of_the_embeddings(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    objective = fitted(student, teacher)
    samples = [3, 1, 8, 5]
    features = some(1, 4, *student), some(2, 4, *teacher)
    drawn: list[Tensor] = []
    draw = objective.negatives.draw
    objective.negatives.draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]  # type: ignore[method-assign, func-returns-value]
    old = [memory.embeddings.numpy() for memory in (objective.student_memory, objective.teacher_memory)]
    loss = term(objective, batch_of(samples), *features)
    embedded = []
    for layer, each in zip((objective.embed_student, objective.embed_teacher), features, strict=True):
        vectors = each.numpy().reshape(4, each.shape[1], -1).mean(axis=2)
        raw = vectors @ layer.linear.weight.detach().numpy().T + layer.linear.bias.detach().numpy()
        embedded.append(raw / np.sqrt((raw**2).sum(axis=1, keepdims=True)))
    expected = 0.0
    for anchors, memory in zip(embedded, reversed(old), strict=True):
        scores = numpy_scores(anchors, memory, np.array(samples), drawn[0].numpy(), 0.5)
        expected += numpy_contrast(scores, scores.mean() * len(TARGETS), len(TARGETS))
    assert len(drawn) == 1
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert loss.shape == ()


def test_a_batch_moves_its_own_rows_of_both_memories() -> None:
    objective = fitted()
    features = some(1, 2, 3), some(2, 2, 5)
    memories = objective.student_memory, objective.teacher_memory
    old = [memory.embeddings.clone() for memory in memories]
    term(objective, batch_of([4, 9]), *features)
    layers = objective.embed_student, objective.embed_teacher
    for memory, before, layer, each in zip(memories, old, layers, features, strict=True):
        moved = 0.75 * before[[4, 9]].numpy() + 0.25 * layer(each).detach().numpy()
        expected = before.numpy().copy()
        expected[[4, 9]] = moved / np.sqrt((moved**2).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(memory.embeddings.numpy(), expected, atol=1e-14)


def test_the_loss_does_not_see_the_rows_that_its_own_batch_writes() -> None:
    features = some(1, 4, 3), some(2, 4, 5)
    losses = [term(fitted(momentum=momentum), batch_of([0, 1, 2, 3]), *features).item() for momentum in (0.0, 0.9)]
    assert losses[0] == losses[1]


def test_in_eval_mode_nothing_is_remembered() -> None:
    objective = fitted().eval()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    first = term(objective, batch_of([4, 9]), some(1, 2, 3), some(2, 2, 5))
    after = objective.state_dict()
    assert all(torch.equal(value.nan_to_num(9.0), after[key].nan_to_num(9.0)) for key, value in before.items())
    assert before["teacher_memory.log_normaliser"].isnan()
    assert first.isfinite()


def test_the_normaliser_is_estimated_once() -> None:
    objective = fitted()
    memories = objective.student_memory, objective.teacher_memory
    assert all(memory.log_normaliser.isnan() for memory in memories)
    term(objective, batch_of([0, 1]), some(1, 2, 3), some(2, 2, 5))
    kept = [memory.log_normaliser.item() for memory in memories]
    term(objective, batch_of([2, 3], step=1), some(3, 2, 3), some(4, 2, 5))
    assert [memory.log_normaliser.item() for memory in memories] == kept
    assert all(math.isfinite(value) for value in kept)


def test_the_memories_begin_uniformly_with_a_mean_squared_length_of_1() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = Memory(5000, 12).embeddings
    assert rows.abs().max().item() <= 0.5  # sqrt(3 / 12)
    assert rows.abs().max().item() > 0.499
    assert rows.mean().item() == pytest.approx(0, abs=0.005)
    assert rows.square().sum(1).mean().item() == pytest.approx(1, abs=0.01)


def test_gradients_reach_the_student_and_both_layers_but_not_the_teacher_nor_the_memories() -> None:
    objective = fitted()
    student, teacher = some(1, 4, 3).requires_grad_(), some(2, 4, 5).requires_grad_()
    torch.autograd.backward(term(objective, batch_of([0, 1, 2, 3]), student, teacher))
    assert student.grad is not None
    assert bool(student.grad.abs().sum(1).gt(0).all())
    assert teacher.grad is None
    names = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert names == {
        f"embed_{network}.linear.{kind}" for network in ("student", "teacher") for kind in ("weight", "bias")
    }
    assert all(bool(parameter.grad.any()) for parameter in objective.parameters() if parameter.grad is not None)
    assert not any(buffer.requires_grad for buffer in objective.buffers())
    assert all(buffer.grad_fn is None for buffer in objective.buffers())


def test_a_student_comes_to_know_the_class_of_a_sample_by_the_teachers_memory() -> None:
    """The teacher's features tell the classes apart; the student's are free."""
    objective = fitted(student=(3,), teacher=(3,), num_negatives=12)
    teacher = F.one_hot(TARGETS, 3).double() + 0.1 * some(1, 12, 3)
    student = nn.Parameter(some(2, 12, 3))
    optimizer = torch.optim.Adam([student, *objective.parameters()], lr=0.05)
    for step in range(120):
        optimizer.zero_grad()
        torch.autograd.backward(term(objective, batch_of(list(range(12)), step=step), student, teacher))
        optimizer.step()
    nearest = (objective.embed_student(student) @ objective.teacher_memory.embeddings.T).argmax(dim=1)
    assert torch.equal(TARGETS[nearest], TARGETS)


@pytest.mark.parametrize("other", [{"seed": 8}, {"epoch": 2}, {"step": 1}])
def test_the_negatives_are_a_function_of_seed_epoch_and_step(other: dict[str, int]) -> None:
    features = some(1, 4, 3), some(2, 4, 5)

    def loss(seed: int = 7, **when: int) -> float:
        objective = fitted()
        objective.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(when))  # a draw from the global generator would show
            return term(objective, batch_of([0, 1, 2, 3], **when), *features).item()

    assert loss() == loss()
    assert loss(epoch=2, step=3) == loss(step=3, epoch=2)
    assert loss(**other) != loss()


@examples
@given(
    targets=st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda each: len(set(each)) > 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_negative_is_a_sample_of_another_class(targets: list[int], seed: int) -> None:
    classes = torch.tensor(targets)
    drawn = Negatives(classes, 5).draw(classes, 40, seed)  # more than there are samples
    assert drawn.shape == (len(targets), 40)
    assert bool((classes[drawn] != classes.unsqueeze(1)).all())


def test_every_sample_of_the_other_classes_is_drawn_equally_often() -> None:
    """Pearson's chi-square of 60,000 draws per class; the bound is the 99.9 % quantile for as many cells less one."""
    negatives = Negatives(TARGETS, 3)
    for target, quantile in ((0, 20.52), (1, 26.12), (2, 26.12)):  # of 5 and of 8 degrees of freedom
        drawn = negatives.draw(torch.tensor([target] * 3), 20_000, seed=target)
        counts = torch.bincount(drawn.flatten(), minlength=len(TARGETS))[target != TARGETS].double()
        expected = 60_000 / len(counts)
        assert ((counts - expected).square() / expected).sum().item() < quantile


def test_the_targets_are_all_that_is_asked_of_the_dataset() -> None:
    """Other programs read `train_data` and the like, which datasets no longer have; here the rows follow from these."""
    objective = ContrastiveRepresentation(**ARGUMENTS)
    objective.fit_to(Pair([(3,)], [(5,)], torch.arange(31) % 4, 7, seed=0))  # three classes have no sample
    assert objective.student_memory.embeddings.shape == objective.teacher_memory.embeddings.shape == (31, 4)
    assert isinstance(objective.embed_student.linear, nn.Linear)
    assert objective.embed_student.linear.weight.shape == (4, 3)
    assert objective.embed_teacher.linear.weight.shape == (4, 5)


def test_what_cannot_be_contrasted_is_refused() -> None:
    points = "neither a vector nor a map\n  choose other points in mode"
    cases: list[tuple[list[tuple[int, ...]], list[tuple[int, ...]], Tensor, str]] = [
        ([(3,)], [(5,)], torch.ones(4, dtype=torch.int64),
         "all training images are of one class, and it needs images of other classes\n"
         "  choose another dataset, or a mode that works with one class, as in mode=soft"),
        ([(3,), (4,)], [(5,), (6,)], TARGETS,
         "it compares one point of each network, and there are 2\n"
         "  write mode.student_points=[pooled] mode.teacher_points=[pooled]"),
        ([(9, 3)], [(5,)], TARGETS, f"the student's features are of shape (9, 3), {points}.student_points"),
        ([(3,)], [(2, 5, 2, 2)], TARGETS, f"the teacher's features are of shape (2, 5, 2, 2), {points}.teacher_points"),
    ]  # fmt: skip
    for student, teacher, targets, expected in cases:
        objective = ContrastiveRepresentation(**ARGUMENTS)
        assert message_of(objective.fit_to, Pair(student, teacher, targets, 3, 0)) == expected
