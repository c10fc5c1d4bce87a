"""Schedules against torch's own, against traces written by hand, and across a resume."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from distill_run.engine.schedules import Constant, Cosine, OneCycle, Plateau, Schedule, Step
from helpers import examples, message_of, refusal

EPOCHS, STEPS = 10, 7  # of training, and in each epoch


def times(epochs: int = EPOCHS, steps: int = STEPS) -> Iterator[float]:
    """The time at every step of a training, as the loop computes it."""
    for epoch in range(1, epochs + 1):
        for step in range(steps):
            yield epoch - 1 + step / steps


def sgd(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def trace(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, num_steps: int) -> list[float]:
    """The learning rate of each step under one of torch's schedulers."""
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("final_fraction", [0.0, 0.1])
def test_cosine_is_that_of_torch(final_fraction: float) -> None:
    optimizer = sgd()
    theirs = trace(optimizer, CosineAnnealingLR(optimizer, EPOCHS * STEPS, eta_min=final_fraction), EPOCHS * STEPS)
    ours = Cosine(epochs=EPOCHS, final_fraction=final_fraction, warmup_epochs=0)
    assert [ours.factor(time) for time in times()] == pytest.approx(theirs, abs=1e-12)
    assert ours.factor(EPOCHS) == pytest.approx(final_fraction)


def test_step_is_that_of_torch() -> None:
    optimizer = sgd()
    milestones = [EPOCHS * STEPS // 2, EPOCHS * STEPS * 8 // 10]
    theirs = trace(optimizer, MultiStepLR(optimizer, milestones, gamma=0.1), EPOCHS * STEPS)
    ours = Step(epochs=EPOCHS, milestones=[0.8, 0.5], gamma=0.1, warmup_epochs=0)
    assert [ours.factor(time) for time in times()] == pytest.approx(theirs, abs=1e-12)


def test_a_milestone_at_a_whole_epoch_counts_from_its_first_step() -> None:
    """0.28 * 100 is 28.000000000000004: a rate that changes after 28 epochs must not wait for a step more."""
    late = []
    for percent in range(1, 100):
        schedule = Step(epochs=100, milestones=[percent / 100], gamma=0.5, warmup_epochs=0)
        if [schedule.factor(percent - 1 / STEPS), schedule.factor(float(percent))] != [1.0, 0.5]:
            late.append(percent)
    assert late == []


def test_one_cycle_is_that_of_torch() -> None:
    """torch counts one step fewer in each phase: its peak is step pct_start * total - 1, its end step total - 1.

    Our time runs from 0 to `epochs`, both included, so N of our steps are N + 1 of torch's.
    """
    num_steps, rise, initial, final = EPOCHS * STEPS, 0.3, 0.04, 4e-6
    optimizer = sgd()
    scheduler = OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=num_steps + 1,
        pct_start=(rise * num_steps + 1) / (num_steps + 1),
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=1 / initial,
        final_div_factor=initial / final,
    )
    theirs = [optimizer.param_groups[0]["lr"]]
    for _ in range(num_steps):
        optimizer.step()
        scheduler.step()
        theirs.append(optimizer.param_groups[0]["lr"])
    ours = OneCycle(epochs=EPOCHS, rise_fraction=rise, initial_fraction=initial, final_fraction=final)
    assert [ours.factor(time) for time in (*times(), EPOCHS)] == pytest.approx(theirs, abs=1e-12)
    assert (theirs[0], theirs[21], theirs[-1]) == pytest.approx((0.04, 1.0, 4e-6))


def test_plateau_follows_a_trace_written_by_hand() -> None:
    schedule = Plateau(epochs=9, patience=2, gamma=0.5, warmup_epochs=0)
    seen = []
    for accuracy in (0.5, 0.6, 0.6, 0.59, 0.61, 0.6, 0.6, 0.6, 0.6):
        schedule.observe(accuracy)
        seen.append(schedule.factor(5.0))
    # best: .5 .6; waits one, two: a cut; a new best; waits one, two: a cut; waits one, two: a cut
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_only_a_plateau_listens_to_the_validation_accuracy() -> None:
    schedule = Cosine(epochs=10, final_fraction=0.0, warmup_epochs=0)
    before = schedule.factor(3.3)
    for _ in range(9):
        schedule.observe(0.1)
    assert schedule.factor(3.3) == before
    assert schedule.state_dict() == {}


def with_warmup(warmup_epochs: float) -> list[Schedule]:
    return [
        Constant(epochs=EPOCHS, warmup_epochs=warmup_epochs),
        Step(epochs=EPOCHS, milestones=[0.9], gamma=0.1, warmup_epochs=warmup_epochs),
        Cosine(epochs=EPOCHS, final_fraction=0.0, warmup_epochs=warmup_epochs),
        Plateau(epochs=EPOCHS, patience=3, gamma=0.1, warmup_epochs=warmup_epochs),
    ]


def test_the_warm_up_is_a_line_to_the_learning_rate() -> None:
    for schedule in with_warmup(2.0):
        assert schedule.factor(0.0) == 1e-3  # not 0: the first step counts
        assert [schedule.factor(time) for time in (0.5, 1.0, 1.5)] == pytest.approx([0.25, 0.5, 0.75])
        assert schedule.factor(2.0) == pytest.approx(1.0)
        warming = [schedule.factor(time) for time in times() if time <= 2]
        assert all(before < after for before, after in pairwise(warming))
    assert [schedule.factor(0.0) for schedule in with_warmup(0)] == [1.0] * 4


def test_after_its_warm_up_a_cosine_is_the_cosine_of_what_is_left() -> None:
    schedule = Cosine(epochs=10, final_fraction=0.2, warmup_epochs=2)
    rest = Cosine(epochs=8, final_fraction=0.2, warmup_epochs=0)
    assert [schedule.factor(time) for time in (2.0, 5.5, 10.0)] == pytest.approx(
        [rest.factor(time) for time in (0.0, 3.5, 8.0)]
    )


def test_a_warm_up_longer_than_the_training_leaves_a_finite_cosine() -> None:
    schedule = Cosine(epochs=2, final_fraction=0.5, warmup_epochs=5)
    assert [schedule.factor(time) for time in (1.0, 2.0)] == [0.5, 0.5]


@examples
@given(time=st.floats(0, 10), warmup_epochs=st.floats(0, 12), final_fraction=st.floats(0, 1))
def test_no_factor_is_negative_or_above_1(time: float, warmup_epochs: float, final_fraction: float) -> None:
    schedules = [
        *with_warmup(warmup_epochs),
        Cosine(epochs=10, final_fraction=final_fraction, warmup_epochs=warmup_epochs),
        OneCycle(epochs=10, rise_fraction=0.3, initial_fraction=final_fraction, final_fraction=final_fraction),
    ]
    assert all(0 <= schedule.factor(time) <= 1 for schedule in schedules)


def test_a_plateau_goes_on_from_its_saved_state() -> None:
    accuracies = (0.5, 0.6, 0.6, 0.59, 0.61, 0.6, 0.6, 0.6, 0.6)
    for cut in range(9):
        whole, first, second = (Plateau(epochs=9, patience=2, gamma=0.5, warmup_epochs=0) for _ in range(3))
        for accuracy in accuracies:
            whole.observe(accuracy)
        for accuracy in accuracies[:cut]:
            first.observe(accuracy)
        second.load_state_dict(first.state_dict())
        for accuracy in accuracies[cut:]:
            second.observe(accuracy)
        assert second.state_dict() == whole.state_dict()
        assert second.factor(8.0) == whole.factor(8.0) == 0.125


def test_a_schedule_refuses_what_it_cannot_use() -> None:
    fractions = "a list of fractions of the epochs, as in [0.5,0.75]"
    accepted: dict[type[Schedule], dict[str, object]] = {
        Constant: {"warmup_epochs": 0},
        Step: {"milestones": [0.5], "gamma": 0.1, "warmup_epochs": 0},
        Cosine: {"final_fraction": 0.1, "warmup_epochs": 0},
        OneCycle: {"rise_fraction": 0.5, "initial_fraction": 0.1, "final_fraction": 0.1},
        Plateau: {"patience": 1, "gamma": 0.1, "warmup_epochs": 0},
    }
    refused: tuple[tuple[type[Schedule], str, object, str], ...] = (
        (Constant, "warmup_epochs", -1, "a number of at least 0"),
        (Step, "milestones", [], fractions),
        (Step, "milestones", [30, 60], fractions),
        (Step, "gamma", 0, "a number above 0"),
        (Cosine, "final_fraction", 1.1, "a number from 0 to 1"),
        (OneCycle, "rise_fraction", 1, "a number between 0 and 1"),
        (OneCycle, "initial_fraction", 25, "a number from 0 to 1"),
        (Plateau, "patience", 0, "a whole number of at least 1"),
        (Plateau, "gamma", 1, "a number between 0 and 1"),
    )
    for schedule, name, value, words in refused:
        assert message_of(schedule, epochs=10, **{**accepted[schedule], name: value}) == refusal(name, value, words)
