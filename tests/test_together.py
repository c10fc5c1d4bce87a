"""Trainings that go on together: their results are those of separate ones."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.data.shared_batches import SharedBatches
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.engine.stacked import StackedTaker, can_stack, measured_faster
from distill_run.engine.together import SharedGuide, Take, take_in_turn, train_together
from distill_run.errors import DivergedError, Interrupted
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from distill_run.stages.live_teacher import LiveTeacher
from helpers import assert_same_batch
from trainers import Watcher, device, fit, make, network


def stacking() -> StackedTaker:
    return StackedTaker(lambda *_: True)


def with_dropout(seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)), [0.4], [0.2])


def soft(temperature: float, alpha: float) -> SoftTargets:
    return SoftTargets(temperature=temperature, alpha=alpha, weight=1.0, divergence="forward", standardize_logits=False)


def teacher() -> LiveTeacher:
    return LiveTeacher(network(9), device())


def four(student: Any = network, **changes: Any) -> list[Trainer]:
    """Four that differ in all that may differ: weights, rate, temperature, alpha, clipping, moving average, weights."""
    return [
        make(soft(1.0, 0.3), teacher(), lr=0.05, student=student(0), **changes),
        make(soft(4.0, 0.9), teacher(), lr=0.1, student=student(1), clip_norm=0.5, **changes),
        make(CrossEntropy(label_smoothing=0.1), lr=0.2, student=student(2), ema=0.9, **changes),
        make(soft(2.0, 0.5), teacher(), lr=0.01, student=student(3), patience=1, **changes),
    ]


def together(
    trainers: Sequence[Trainer], take: Take = take_in_turn, stop: StopRequest | None = None
) -> tuple[list[BaseException | None], list[Watcher]]:
    """Train all over the same batches; what ended each, and what each told."""
    accumulation = trainers[0].learner.recipe.accumulation
    shared = SharedBatches(trainers[0].batches, accumulation)
    for trainer in trainers:
        trainer.batches = shared
    watchers = [Watcher() for _ in trainers]
    stop = stop or StopRequest()
    steps = [trainer.steps(watcher, stop) for trainer, watcher in zip(trainers, watchers, strict=True)]
    return train_together(steps, take), watchers


def assert_equal(one: Trainer, other: Trainer, rtol: float, atol: float) -> None:
    """The last and the evaluated weights, and the figures of all epochs."""
    theirs = {**other.learner.network.state_dict(), **other.learner.weights()}
    for name, value in {**one.learner.network.state_dict(), **one.learner.weights()}.items():
        torch.testing.assert_close(value, theirs[name], rtol=rtol, atol=atol)
    assert [row["epoch"] for row in one.history] == [row["epoch"] for row in other.history]
    for ours, expected in zip(one.history, other.history, strict=True):
        for split in ("train", "val"):
            assert ours[split] == pytest.approx(expected[split], rel=rtol, abs=0)


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}], ids=["", "accumulation"])
@pytest.mark.parametrize("student", [network, with_dropout], ids=["batch norm", "dropout"])
def test_in_turn_each_ends_bit_for_bit_as_alone(student: Any, changes: dict[str, Any]) -> None:
    alone = four(student, **changes)
    told_alone = [fit(trainer) for trainer in alone]
    trainers = four(student, **changes)
    errors, told = together(trainers)
    assert errors == [None] * 4
    for one, other, ours, theirs in zip(trainers, alone, told, told_alone, strict=True):
        assert ours.losses == theirs.losses
        assert_equal(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}, {"freeze_batch_norm": True}], ids=str)
def test_stacked_each_ends_as_alone_within_the_rounding_of_float32(changes: dict[str, Any]) -> None:
    alone, trainers, take = four(**changes), four(**changes), stacking()
    for trainer in alone:
        fit(trainer)
    errors, _ = together(trainers, take)
    assert errors == [None] * 4
    assert any(take.decided.values())
    for one, other in zip(trainers, alone, strict=True):
        assert_equal(one, other, rtol=1e-3, atol=1e-4)


def test_networks_with_other_seeds_have_their_own_images_when_they_are_stacked() -> None:
    def several() -> list[Trainer]:
        made = [make(student=network(seed)) for seed in range(3)]
        for seed, trainer in enumerate(made):
            trainer.batches.seed = seed
        return made

    alone, trainers, take = several(), several(), stacking()
    for trainer in alone:
        fit(trainer)
    stop = StopRequest()
    assert train_together([trainer.steps(Watcher(), stop) for trainer in trainers], take) == [None] * 3
    assert list(take.decided.values()) == [True]
    for one, other in zip(trainers, alone, strict=True):
        assert_equal(one, other, rtol=1e-3, atol=1e-4)


def test_a_network_that_draws_at_random_is_never_stacked() -> None:
    trainers = four(with_dropout)
    learners = [trainer.learner for trainer in trainers]
    images = [torch.rand(4, 1, 6, 6)] * 4
    assert not can_stack(learners, images)
    assert can_stack([trainer.learner for trainer in four()], images)


def test_what_was_tried_and_measured_on_copies_is_told_and_changes_nothing() -> None:
    trainers, told = four(), list[str]()
    before = [{name: value.clone() for name, value in each.learner.network.state_dict().items()} for each in trainers]
    learners, images = [trainer.learner for trainer in trainers], [torch.rand(4, 1, 6, 6)] * 4
    assert can_stack(learners, images)
    way = "stacked" if measured_faster(told.append)(learners, images) else "in turn"
    assert told[0].startswith(f"4 networks train together, {way}: measured ")
    for trainer, weights in zip(trainers, before, strict=True):
        for name, value in trainer.learner.network.state_dict().items():
            assert torch.equal(value, weights[name])
        assert all(parameter.grad is None for parameter in trainer.learner.network.parameters())


@pytest.mark.parametrize("take", [take_in_turn, stacking()], ids=["in turn", "stacked"])
def test_a_training_that_diverges_drops_out_without_harm_to_the_others(take: Take) -> None:
    alone, trainers = four(), four()
    for trainer in alone:
        fit(trainer)
    trainers[1] = make(soft(4.0, 0.9), teacher(), lr=1e30, student=network(1))
    errors, _ = together(trainers, take)
    assert [type(error) for error in errors] == [type(None), DivergedError, type(None), type(None)]
    assert "the student's loss is not finite at epoch 1, step 2" in str(errors[1])
    for number in (0, 2, 3):
        assert_equal(trainers[number], alone[number], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("take", [take_in_turn, stacking()], ids=["in turn", "stacked"])
def test_when_asked_to_stop_each_saves_its_state_and_goes_on_from_it(take: Take) -> None:
    alone, trainers, stop = four(), four(), StopRequest()
    for trainer in alone:
        fit(trainer)
    step = trainers[2].end_step

    def then_stop(loss: Tensor, num_images: int, watcher: Any) -> None:
        step(loss, num_images, watcher)
        if (trainers[2].epoch, trainers[2].step) == (2, 2):
            stop.request(Interrupted("SIGINT"))

    trainers[2].end_step = then_stop  # type: ignore[method-assign]
    errors, told = together(trainers, take, stop)
    assert [str(error) for error in errors] == ["SIGINT"] * 4
    resumed = four()
    for trainer, watcher in zip(resumed, told, strict=True):
        trainer.load_state(watcher.saved[-1])
        assert (trainer.epoch, trainer.step) == (2, 2)
    assert together(resumed, take)[0] == [None] * 4
    for one, other in zip(resumed, alone, strict=True):
        assert_equal(one, other, rtol=1e-3, atol=1e-4)


def test_trainings_that_go_on_from_different_steps_meet_and_share_again() -> None:
    trainers = [make(student=network(seed)) for seed in range(2)]
    batches = trainers[1].batches.epoch(1)
    for _ in range(2):
        trainers[1]._train_step(batches, Watcher())
    places: list[list[tuple[int, int]]] = []

    def noting(steps: Sequence[Any]) -> list[BaseException | None]:
        places.append([step.place for step in steps])
        return take_in_turn(steps)

    train_together([trainer.steps(Watcher(), StopRequest()) for trainer in trainers], noting)
    assert places[:4] == [[(1, 0)], [(1, 1)], [(1, 2)] * 2, [(1, 3)] * 2]
    assert all(len(now) == 2 for now in places[2:])


def test_shared_batches_are_made_once_and_are_those_of_each_alone() -> None:
    plain = make().batches
    made: list[tuple[int, int]] = []

    class Counted(type(plain)):  # type: ignore[misc]
        def epoch(self, epoch: int, first_step: int = 0) -> Any:
            for batch in super().epoch(epoch, first_step):
                made.append((batch.epoch, batch.step))
                yield batch

    counted = Counted(plain.views, 16, seed=5)  # type: ignore[attr-defined]
    shared = SharedBatches(counted, num_kept=1)
    for batches in zip(shared.epoch(1), shared.epoch(1), plain.epoch(1), strict=True):
        assert batches[0] is batches[1]
        assert_same_batch(batches[0], batches[2])
    assert made == [(1, 0), (1, 1), (1, 2), (1, 3)]
    (late,) = (batch for batch in shared.epoch(1, first_step=1) if batch.step == 1)
    assert_same_batch(late, next(plain.epoch(1, first_step=1)))
    assert len(shared.kept) == 1
    assert (shared.num_steps, shared.num_samples) == (plain.num_steps, plain.num_samples)


def test_a_shared_guide_is_asked_once_for_each_batch() -> None:
    asked: list[int] = []

    def guide(batch: Batch) -> Outputs:
        asked.append(batch.step)
        return Outputs(batch.images.flatten(1))

    shared = SharedGuide(guide, num_kept=1)
    for batch in make().batches.epoch(1):
        assert shared(batch) is shared(batch)
    assert asked == [0, 1, 2, 3]
