"""What holds for every mode, whichever file is added to conf/mode: who learns, who does not, what is repeated."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import TINY
from distill_run import checkpoint
from distill_run.config.compose import option_names
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.engine.checks import Later
from distill_run.engine.loop import Trainer
from distill_run.stages.guides import SeveralTeachers
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.student import guided
from distill_run.stages.watcher import Watcher
from workshops import Opened, open_settings

MODES = option_names("mode")
# Networks with maps in stages; few negatives; every term has its whole weight from the first epoch on.
PAIR = [
    *(override for override in TINY if not override.startswith("student")),
    *("student=cnn_small", "student.widths=[4,6,8]"),
    *("training.teacher.epochs=1", "training.student.epochs=1", "training.student.batch_size=256"),
]
SMALL = {"crd": ["num_negatives=32", "embedding_size=8"], "review_kd": ["warmup_epochs=0"], "dkd": ["warmup_epochs=0"]}
GUIDED_BY = {"logits": "logit bank", "features": "live teacher", "nothing": "nothing"}
FEEDS = Feeds()


def overrides_of(mode: str, key: str = "mode") -> list[str]:
    return [f"{key}.{override}" for override in SMALL.get(mode, [])]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def opened(store: Path, *overrides: str) -> Opened:
    return open_settings(compose_config([*PAIR, f"store_dir={store}", *overrides]), store, FEEDS)


def trainer_of(mode: str, store: Path, *overrides: str) -> tuple[Trainer, Any]:
    """A trainer of the mode, and what gives it the teacher's outputs."""
    return opened(store, f"mode={mode}", *overrides_of(mode), *overrides).student()


def take_a_step(trainer: Trainer, step: int = 0) -> None:
    trainer.learner.network.train()
    trainer.learner.loss.train()
    trainer.step = step
    trainer._train_step(trainer.batches.epoch(1, first_step=step), Watcher())


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    parts = {"network": trainer.learner.network.state_dict(), "loss": trainer.learner.loss.state_dict()}
    return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def learning_of(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    parts = {"network": trainer.learner.network, "loss": trainer.learner.loss}
    named = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}
    return {name: value for name, value in named.items() if value.requires_grad}


@pytest.mark.parametrize("mode", MODES)
def test_all_that_should_learn_learns_and_the_teacher_does_not(mode: str, store: Path) -> None:
    trainer, guide = trainer_of(mode, store, "logit_bank_gigabytes=0")
    take_a_step(trainer)
    before = {name: value.detach().clone() for name, value in learning_of(trainer).items()}
    frozen = {} if guide is None else {name: value.clone() for name, value in guide.network.state_dict().items()}
    take_a_step(trainer)
    optimized = {id(each) for group in trainer.learner.optimizer.param_groups for each in group["params"]}
    kept = state_of(trainer)
    for name, parameter in learning_of(trainer).items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert id(parameter) in optimized, name
        assert torch.equal(kept[name], parameter), name
    changed = [name for name, value in learning_of(trainer).items() if not torch.equal(value, before[name])]
    assert len(changed) > 0.9 * len(before)
    if guide is None:
        assert trainer.learner.loss.needs == "nothing"
        return
    assert isinstance(guide, LiveTeacher)
    assert not any(module.training for module in guide.network.modules())
    assert not any(parameter.requires_grad for parameter in guide.network.parameters())
    assert all(parameter.grad is None for parameter in guide.network.parameters())
    assert all(torch.equal(value, frozen[name]) for name, value in guide.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_trainings_from_one_seed_are_equal_and_a_resumed_one_as_well(mode: str, store: Path) -> None:
    first, second, resumed = (trainer_of(mode, store)[0] for _ in range(3))
    take_a_step(first)
    take_a_step(second)
    resumed.load_state(copy.deepcopy(first.state()))
    for trainer in (first, second, resumed):
        take_a_step(trainer, step=1)
    for other in (second, resumed):
        assert state_of(first).keys() == state_of(other).keys()
        assert all(torch.equal(value, state_of(other)[name]) for name, value in state_of(first).items())


@pytest.mark.parametrize("mode", MODES)
def test_a_student_ships_without_what_only_trains(mode: str, store: Path, tmp_path: Path) -> None:
    """Projections and memories are thrown away, but for the projection that SimKD's student decides with."""
    run_of = opened(store, f"mode={mode}", *overrides_of(mode))
    ready = guided(run_of.lineup.student, run_of.teacher(), run_of.workshop)
    assert ready.guided_by == GUIDED_BY[ready.assembly.loss.needs]
    student = run_of.workshop.train(ready)
    checkpoint.save_network(tmp_path / "student.pt", student.own_network, student.node, student.name)
    network = checkpoint.load_network(tmp_path / "student.pt")
    parts = {name.split(".")[0] for name in network.architecture.state_dict()}
    assert parts == ({"student", "projection", "classifier"} if mode == "simkd" else {"stages", "head"})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(network(images), student.network(images))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("soft", "none")])
def test_every_mode_adds_to_soft_by_its_weight(mode: str, store: Path) -> None:
    trainer, guide = trainer_of("soft", store, f"also={mode}", *overrides_of(mode, f"mode.also.{mode}"))
    batch = next(trainer.batches.epoch(1))
    trainer.learner.network.eval()
    loss, parts = trainer.learner.loss.losses(batch, trainer.learner.read(batch.images), guide(batch))
    terms = trainer.learner.loss.terms
    assert parts.keys() == {"cross_entropy", "distillation", mode}
    soft = terms["distillation"]
    expected = soft.task_weight * parts["cross_entropy"] + soft.weight * parts["distillation"]
    assert loss.item() == pytest.approx((expected + terms[mode].weight * parts[mode]).item(), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_mixed_images_work_with_every_mode(mode: str, store: Path) -> None:
    mixed = ("training.student.mixup=0.4", "training.student.cutmix=1.0")
    trainer, guide = trainer_of(mode, store, *mixed)
    batch = next(trainer.batches.epoch(1))
    assert batch.shares is not None
    take_a_step(trainer)
    assert all(parameter.grad is not None for parameter in learning_of(trainer).values())
    if isinstance(guide, LiveTeacher | SeveralTeachers) or guide is None:
        return
    live = LiveTeacher(guide.teacher, trainer.learner.device)  # the bank was filled with the same mixtures
    torch.testing.assert_close(guide(batch).logits, live(batch).logits, rtol=1e-5, atol=1e-5)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what makes the host wait for a GPU: a number that is read, a place that is looked for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        has_mask = name in ("index", "index_put_") and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if has_mask or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
def test_a_step_waits_for_no_gpu(mode: str, store: Path) -> None:
    """On a CPU, where a number is read all the same. The first step of crd looks whether its constant is known."""
    trainer, _ = trainer_of(mode, store, "training.student.clip_norm=1.0", "+training.student.optimizer.fused=true")
    trainer.learner.check = Later(torch.device("cpu"))
    take_a_step(trainer)
    with Waits() as waits:
        take_a_step(trainer, step=1)
    assert waits.found == []
