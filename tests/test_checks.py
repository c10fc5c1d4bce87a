"""A check that looks later stops where the one that looks at once does, with the same message and the same state."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_run.data.batches import Batch
from distill_run.engine import loop
from distill_run.engine.checks import AtOnce, Check, Later, check_for
from distill_run.engine.device import Device
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.errors import DivergedError, Interrupted
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import Objective, TargetObjective
from distill_run.objectives.hard import HardTargets
from test_device import wanted
from trainers import Watcher, fit, make

NAN = float("nan")
BAD = (2, 1)  # the epoch (from 1) and the batch (from 0) that something is wrong with
CPU = torch.device("cpu")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01),  # has no fused kernels
}
CHECKS: dict[str, Callable[[], Check]] = {"at once": AtOnce, "later": lambda: Later(CPU)}


class Spoilt(TargetObjective):
    """A term that is spoilt `times` times in the batch BAD."""

    def __init__(self, spoil: Callable[[Tensor], Tensor], times: int = 10) -> None:
        super().__init__()
        self.spoil = spoil
        self.times = times

    def distillation(self, batch: Batch, student: Outputs) -> Tensor:
        term = student.logits.square().mean()
        if (batch.epoch, batch.step) != BAD or self.times == 0:
            return term
        self.times -= 1
        return term + self.spoil(student.logits)


def loss(logits: Tensor) -> Tensor:
    return logits.sum() * torch.inf


def gradients(logits: Tensor) -> Tensor:
    """The slope of a root at 0 is infinite, and 0 times infinity is NaN; the loss is finite."""
    return (logits - logits.detach()).square().sqrt().sum()


def teacher_spoilt(batch: Batch) -> Outputs:
    return Outputs(torch.full((len(batch.targets), 3), NAN if (batch.epoch, batch.step) == BAD else 1.0))


def trainer_of(objective: Objective, optimizer: str, check: str, **changes: Any) -> Trainer:
    trainer = make(objective, clip_norm=0.5, ema=0.9, **changes)
    trainer.learner.optimizer = OPTIMIZERS[optimizer](trainer.learner.optimizer.param_groups[0]["params"])
    trainer.learner.check = CHECKS[check]()
    return trainer


def state_of(trainer: Trainer) -> dict[str, Any]:
    """What a resume would go on from, without times."""
    state = trainer.state()
    state["totals"] = {name: value for name, value in state["totals"].items() if not name.endswith("seconds")}
    state["history"] = [{name: row[name] for name in ("epoch", "train", "val")} for row in state["history"]]
    return state


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


FAULTS: dict[str, tuple[Objective, Any]] = {
    "loss is": (Spoilt(loss), None),
    "gradients are": (Spoilt(gradients), None),
    "teacher's logits are": (HardTargets(alpha=0.5, label_smoothing=0.0, standardize_logits=False), teacher_spoilt),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_checks_stop_with_the_same_message_and_state(fault: str, accumulation: int, optimizer: str) -> None:
    """Weights, momentum, the moving average, buffers and totals are equal, although steps with NaN were taken."""
    objective, guide = FAULTS[fault]
    ends = []
    for check in CHECKS:
        trainer = trainer_of(copy.deepcopy(objective), optimizer, check, accumulation=accumulation)
        trainer.learner.guide = guide
        with pytest.raises(DivergedError) as caught:
            fit(trainer)
        ends.append((caught.value.mistakes[0].what, state_of(trainer)))
    (told, expected), (told_later, found) = ends
    assert told_later == told
    assert told.startswith(f"the student's {fault} not finite at epoch 2, step {2 // accumulation}: ")
    assert_equal(found, expected)
    assert all(weight.isfinite().all() for weight in trainer.learner.network.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_healthy_training_is_the_same_with_both_checks(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_STEPS", 3)
    trainers = [trainer_of(Spoilt(loss, times=0), optimizer, check) for check in CHECKS]
    at_once, later = map(fit, trainers)
    assert later.losses == at_once.losses
    assert_equal(state_of(trainers[1]), state_of(trainers[0]))
    assert isinstance(trainers[1].learner.check, Later)


def test_what_goes_well_the_second_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with algorithms that are not deterministic: from then on, each step is checked at once."""
    monkeypatch.setattr(loop, "CHECK_STEPS", 1)
    healthy = trainer_of(Spoilt(loss, times=0), "sgd", "at once")
    fit(healthy)
    for steps in (1, 3):
        monkeypatch.setattr(loop, "CHECK_STEPS", steps)
        trainer = trainer_of(Spoilt(loss, times=1), "sgd", "later")
        fit(trainer)
        assert_equal(state_of(trainer), state_of(healthy))
        assert isinstance(trainer.learner.check, AtOnce)


def test_no_checkpoint_takes_bad_weights_in() -> None:
    """A signal after the bad step: the state before it is saved, and a resume comes to the same end."""
    trainer, watcher = trainer_of(Spoilt(loss), "sgd", "later"), Watcher()
    with StopRequest() as stop:

        def stepped(epoch: int, step: int, *_: object) -> None:
            if (epoch, step) == (2, 3):
                stop.request(Interrupted())

        watcher.stepped = stepped  # type: ignore[method-assign, assignment]
        with pytest.raises(Interrupted):
            trainer.fit(watcher, stop)
    assert (watcher.saved[-1]["epoch"], watcher.saved[-1]["step"]) == (2, 0)
    resumed = trainer_of(Spoilt(loss), "sgd", "later")
    resumed.load_state(watcher.saved[-1])
    assert all(weight.isfinite().all() for weight in resumed.learner.network.parameters())
    with pytest.raises(DivergedError, match="loss is not finite at epoch 2, step 2"):
        fit(resumed)


def test_a_cpu_and_half_precision_are_checked_at_once() -> None:
    """The scaler of half precision waits for the GPU at every step anyway."""
    for kind, precision in (("cpu", "fp32"), ("cpu", "bf16"), ("mps", "fp32"), ("cuda", "fp16")):
        assert isinstance(check_for(Device(wanted(kind, precision), ())), AtOnce)
