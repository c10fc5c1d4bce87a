"""What holds for every mode, whichever file is added to conf/mode: who learns, who does not, what is repeated."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import TINY
from distill_run.config.compose import compose_config, config_dir, option_names
from distill_run.console import Console
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.run import run
from distill_run.stages.prepare import prepare
from distill_run.stages.student import SeveralTeachers, baseline_plan, distil
from distill_run.stages.teacher import LiveTeacher, obtain_teacher
from distill_run.stages.training import make_trainer

pytestmark = pytest.mark.usefixtures("no_pages")

MODES = option_names(config_dir() / "mode")
# Networks with maps in stages; few negatives; every term has its whole weight from the first epoch on.
PAIR = [
    *(override for override in TINY if not override.startswith("student")),
    "student=cnn_small",
    "student.widths=[4,6,8]",
    "training.teacher.epochs=1",
    "training.student.batch_size=256",
]
SMALL = {"crd": ["num_negatives=32", "embedding_size=8"], "review_kd": ["warmup_epochs=0"], "dkd": ["warmup_epochs=0"]}


def overrides_of(mode: str) -> list[str]:
    return [f"mode={mode}", *(f"mode.{override}" for override in SMALL.get(mode, []))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@contextmanager
def trainer_of(mode: str, store: Path, *overrides: str) -> Iterator[tuple[Trainer, Any]]:
    """A trainer of the mode, and what gives it the teacher's outputs."""
    config = compose_config([*PAIR, *overrides_of(mode), f"store_dir={store}", *overrides])
    with StopRequest() as stop:
        bench = prepare(config, store / "run", Console(quiet=True), stop)
        plan, guide, _ = distil(baseline_plan(bench), obtain_teacher(bench), bench)
        yield make_trainer(plan, bench, guide), guide


def take_a_step(trainer: Trainer) -> None:
    trainer.network.train()
    trainer.loss.train()
    trainer._train_step(next(trainer.batches.epoch(1)), lambda _: None)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    parts = {"network": trainer.network.state_dict(), "loss": trainer.loss.state_dict()}
    return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def learning_of(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    parts = {"network": trainer.network, "loss": trainer.loss}
    named = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}
    return {name: value for name, value in named.items() if value.requires_grad}


@pytest.mark.parametrize("mode", MODES)
def test_all_that_should_learn_has_a_gradient_and_is_in_the_optimizer_and_in_the_checkpoint(
    mode: str, store: Path
) -> None:
    with trainer_of(mode, store) as (trainer, _):
        take_a_step(trainer)
        before = {name: value.detach().clone() for name, value in learning_of(trainer).items()}
        take_a_step(trainer)
        optimized = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
        kept = state_of(trainer)
        for name, parameter in learning_of(trainer).items():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert id(parameter) in optimized, name
            assert torch.equal(kept[name], parameter), name
        changed = [name for name, value in learning_of(trainer).items() if not torch.equal(value, before[name])]
        assert len(changed) > 0.9 * len(before)


@pytest.mark.parametrize("mode", MODES)
def test_the_teacher_takes_no_gradient_stays_in_eval_mode_and_does_not_change(mode: str, store: Path) -> None:
    with trainer_of(mode, store, "logit_bank_gigabytes=0") as (trainer, guide):
        if guide is None:
            assert trainer.loss.needs == "nothing"
            return
        assert isinstance(guide, LiveTeacher)
        before = {name: value.clone() for name, value in guide.network.state_dict().items()}
        take_a_step(trainer)
        assert not any(module.training for module in guide.network.modules())
        assert not any(parameter.requires_grad for parameter in guide.network.parameters())
        assert all(parameter.grad is None for parameter in guide.network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in guide.network.state_dict().items())


@pytest.mark.parametrize("mode", MODES)
def test_two_trainings_from_one_seed_are_equal_and_a_resumed_one_as_well(mode: str, store: Path) -> None:
    with trainer_of(mode, store) as (first, _), trainer_of(mode, store) as (second, _):
        take_a_step(first)
        take_a_step(second)
        with trainer_of(mode, store) as (third, _):
            third.load_state(copy.deepcopy(first.state()))
            batch = list(first.batches.epoch(1))[1]
            for trainer in (first, second, third):
                trainer.network.train()
                trainer.step = 1
                trainer._train_step(batch, lambda _: None)
        for other in (second, third):
            assert state_of(first).keys() == state_of(other).keys()
            assert all(torch.equal(value, state_of(other)[name]) for name, value in state_of(first).items())


@pytest.mark.parametrize("mode", MODES)
def test_student_pt_holds_nothing_that_only_trains(mode: str, store: Path, tmp_path: Path) -> None:
    """Projections and memories are thrown away, but for the projection that SimKD's student decides with."""
    small = ["training.student.epochs=1", "baseline=false", f"store_dir={store}"]
    report = run(compose_config([*PAIR, *overrides_of(mode), *small]), tmp_path / "run")
    weights = torch.load(report.run_dir / "checkpoints" / "student.pt", weights_only=True)["weights"]
    parts = {name.split(".")[0] for name in weights}
    assert parts == ({"student", "projection", "classifier"} if mode == "simkd" else {"stages", "head"})
    needs = {"logits": "logit bank", "features": "live teacher", "nothing": "nothing"}
    with trainer_of(mode, store) as (trainer, _):
        assert report.summary["guided_by"] == needs[trainer.loss.needs]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("soft", "none")])
def test_every_mode_adds_to_soft_by_its_weight(mode: str, store: Path) -> None:
    also = [f"also={mode}", *(f"mode.also.{override}" for override in overrides_of(mode)[1:])]
    also = [override.replace("mode.also.mode.", f"mode.also.{mode}.") for override in also]
    with trainer_of("soft", store, *also) as (trainer, guide):
        batch = next(trainer.batches.epoch(1))
        trainer.network.eval()
        loss, parts = trainer.loss.losses(batch, trainer.read(batch.images), guide(batch))
        terms = trainer.loss.terms
        assert parts.keys() == {"cross_entropy", "distillation", mode}
        soft = terms["distillation"]
        expected = soft.task_weight * parts["cross_entropy"] + soft.weight * parts["distillation"]
        assert loss.item() == pytest.approx((expected + terms[mode].weight * parts[mode]).item(), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_mixed_images_work_with_every_mode(mode: str, store: Path) -> None:
    mixed = ("training.student.mixup=0.4", "training.student.cutmix=1.0")
    with trainer_of(mode, store, *mixed) as (trainer, guide):
        batch = next(trainer.batches.epoch(1))
        assert batch.shares is not None
        take_a_step(trainer)
        assert all(parameter.grad is not None for parameter in learning_of(trainer).values())
        if isinstance(guide, LiveTeacher | SeveralTeachers) or guide is None:
            return
        live = LiveTeacher(guide.teacher, trainer.device)  # the bank was filled with the same mixtures
        torch.testing.assert_close(guide(batch).logits, live(batch).logits, rtol=1e-5, atol=1e-5)
