"""GPUs: pytest -n0 -m gpu. No step waits for one, every precision trains, the same numbers come back."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import TINY
from distill_run.config.settings import compose_config
from distill_run.data.opening import Feeds
from distill_run.engine.checks import AtOnce, Later
from distill_run.engine.device import Device
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.engine.stacked import StackedTaker
from distill_run.errors import DivergedError
from distill_run.models.layers import last_linear
from distill_run.pipeline import run
from distill_run.stages.logit_bank import BankedTeacher
from distill_run.stages.watcher import Watcher
from test_every_mode import MODES, overrides_of
from test_processes_run import assert_close, student_of
from test_together import assert_equal, together
from workshops import open_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
FEEDS = Feeds()
PAIR = [
    *(word for word in TINY if not word.startswith(("device", "student"))),
    *("device=cuda", "student=cnn_small", "training.student.epochs=2"),
    *("dataset.augment.crop.padding=2", "dataset.augment.flip.enabled=true", "dataset.augment.cutout.size=2"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def trainer_of(store: Path, *overrides: str) -> Trainer:
    settings = compose_config([*PAIR, f"store_dir={store}", *overrides])
    return open_settings(settings, store, FEEDS).student()[0]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the GPU raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def take_steps(trainer: Trainer) -> None:
    """Most steps of an epoch without waiting; the first one reads the bank's view, after the last one is the check."""
    with StopRequest() as stop:
        steps = trainer.steps(Watcher(), stop)
        next(steps).take()
        with no_waiting():
            for _ in range(trainer.num_steps - 2):
                next(steps).take()


VARIANTS = {
    "mixed, clipped, averaged": [
        *("training.student.mixup=0.2", "training.student.cutmix=1", "training.student.clip_norm=1.0"),
        *("training.student.ema=0.99", "training.student.accumulation=2"),
    ],
    **{step: [f"augment={step}"] for step in ("color_jitter", "trivial_augment", "rand_augment", "random_erasing")},
    "adamw": ["training/student/optimizer=adamw"],
    "tf32": ["device.precision=tf32"],
    "fp32": ["device.precision=fp32", "device.channels_last=false", "device.deterministic=false"],
    "the largest logits": ["logit_bank_top_k=3"],
    "the teacher live": ["logit_bank_gigabytes=0"],
}


@pytest.mark.parametrize("mode", MODES)
def test_no_step_of_a_mode_waits_for_the_gpu(mode: str, store: Path) -> None:
    """All modes. crd alone asks once: in its first step, whether its constant is known.

    What waits at every step is fp16, whose scaler reads whether gradients overflow.
    """
    trainer = trainer_of(store, f"mode={mode}", *overrides_of(mode))
    assert isinstance(trainer.learner.check, Later)
    take_steps(trainer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_of_a_variant_waits_for_the_gpu(variant: str, store: Path) -> None:
    take_steps(trainer_of(store, *VARIANTS[variant]))


def test_a_view_without_room_is_sent_without_waiting(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = trainer_of(store), trainer_of(store)
    guides: list[Any] = [near.learner.guide, far.learner.guide]
    batch = next(near.batches.epoch(1))
    placed = guides[0](batch).logits
    monkeypatch.setattr(Device, "free_bytes", lambda _: 0)
    sent = guides[1](batch).logits
    assert all(isinstance(guide, BankedTeacher) for guide in guides)
    assert isinstance(guides[0].placed, torch.Tensor)
    assert guides[0].placed.is_cuda
    assert guides[1].placed is None
    assert torch.equal(sent, placed)
    take_steps(far)


@pytest.mark.parametrize(
    "overrides",
    [
        *(["device.precision=fp32"], ["device.precision=tf32"], ["device.precision=bf16"], ["device.precision=fp16"]),
        *(["device.compile=default"], ["device.compile=max"], ["device.channels_last=false"]),
        ["device.compile=max", "training.student.accumulation=2", "mode=fitnet"],
    ],
)
def test_every_precision_and_compilation_learns(overrides: list[str], store: Path) -> None:
    """With compile=max, an epoch has batches of two sizes, and so two graphs."""
    trainer = trainer_of(store, *overrides)
    with StopRequest() as stop:
        trainer.fit(Watcher(), stop)
    first, last = (row["train"]["loss"] for row in trainer.history)
    assert last < first
    fused = {group["fused"] for group in trainer.learner.optimizer.param_groups}
    assert fused == ({None} if "device.precision=fp16" in overrides else {True})


def test_the_gpu_and_the_cpu_take_the_same_step_in_fp32(store: Path) -> None:
    weights = []
    for kind in ("cuda", "cpu"):
        words = [word for word in PAIR if word != "device=cuda"]
        overrides = [*words, f"device={kind}", "device.precision=fp32", f"store_dir={store}", "logit_bank_gigabytes=0"]
        opened = open_settings(compose_config([*overrides, "mode=none"]), store)
        trainer = opened.student()[0]
        with StopRequest() as stop:
            next(trainer.steps(Watcher(), stop)).take()
        weights.append(trainer.learner.weights())
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-3, atol=1e-5)


def test_a_deterministic_training_gives_the_same_bits_twice(store: Path) -> None:
    ends = []
    for _ in range(2):
        trainer = trainer_of(store, "mode=crd", *overrides_of("crd"))
        with StopRequest() as stop:
            trainer.fit(Watcher(), stop)
        ends.append(trainer.learner.weights())
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


def test_a_loss_that_is_not_finite_is_told_as_on_a_cpu(store: Path) -> None:
    told, states = [], []
    for check in (AtOnce, Later):
        trainer = trainer_of(store)
        if check is AtOnce:
            trainer.learner.check = AtOnce()
        spoil_after(trainer, steps=5)
        with StopRequest() as stop, pytest.raises(DivergedError) as caught:
            trainer.fit(Watcher(), stop)
        told.append(caught.value.mistakes[0].what)
        states.append(copy.deepcopy(trainer.learner.network.state_dict()))
    assert told[0] == told[1]
    assert "not finite at epoch 1, step 6: " in told[0]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def spoil_after(trainer: Trainer, steps: int) -> None:
    """Make the logits of one batch infinite, whenever it comes."""
    layer: nn.Module = last_linear(trainer.learner.network.architecture, "student")[1]
    epoch = trainer.batches.epoch
    bad: list[bool] = []

    def served(number: int, first_step: int = 0) -> Iterator[Any]:
        for batch in epoch(number, first_step):
            bad[:] = [batch.step == steps]
            yield batch

    trainer.batches.epoch = served  # type: ignore[method-assign, assignment]
    layer.register_forward_hook(lambda _module, _inputs, output: output / 0 if bad == [True] else output)


def test_students_that_train_stacked_end_as_alone(store: Path) -> None:
    def several() -> list[Trainer]:
        swept = [f"mode.temperature={temperature}" for temperature in (1, 4)]
        return [trainer_of(store, "device.precision=fp32", "logit_bank_gigabytes=0", words) for words in swept]

    alone, trainers, take = several(), several(), StackedTaker(lambda *_: True)
    for trainer in alone:
        with StopRequest() as stop:
            trainer.fit(Watcher(), stop)
    assert together(trainers, take)[0] == [None, None]
    assert any(take.decided.values())
    for one, other in zip(trainers, alone, strict=True):
        assert_equal(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has fewer than two CUDA devices")
def test_two_gpus_do_the_run_of_one(tmp_path: Path) -> None:
    for num in (1, 2):
        overrides = ["device.precision=fp32", f"device.num_processes={num}", f"store_dir={tmp_path / f'store-{num}'}"]
        run(compose_config([*PAIR, "export=null", *overrides]), tmp_path / f"run-{num}")
    ours, theirs = student_of(tmp_path, "run-2"), student_of(tmp_path, "run-1")
    assert_close(ours, theirs, 1e-2)
