"""A trainer of a tiny student, for tests of the loop: everything about it may be chosen."""

from typing import Any

import torch
from torch import Tensor, nn

from distill_run.config.schema import DeviceSettings, Recipe
from distill_run.data.feed import MemoryBatches
from distill_run.data.source import Split
from distill_run.data.views import ViewChoice, Views
from distill_run.engine.device import Device, choose_device
from distill_run.engine.fine_tuning import parameter_groups
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.learner import Learner
from distill_run.engine.loop import Trainer
from distill_run.engine.schedules import Constant, Schedule
from distill_run.models.network import Network
from distill_run.objectives.base import Objective
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.stages.live_teacher import LiveTeacher
from helpers import steps

EPOCHS = 3


def device(precision: str = "fp32") -> Device:
    return choose_device(device_settings(precision=precision))


def device_settings(**changes: Any) -> DeviceSettings:
    fixed: dict[str, Any] = {
        "kind": "cpu", "precision": "fp32", "channels_last": False, "compile": "off", "deterministic": True,
        "num_processes": 1, "sync_batch_norm": True,
    }  # fmt: skip
    return DeviceSettings(**{**fixed, **changes})


def split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 1, 6, 6), generator=generator) + 60 * targets.view(-1, 1, 1, 1)
    return Split(images.to(torch.uint8), targets)


def network(seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return Network(layers, [0.4], [0.2])


def make_recipe(**changes: Any) -> Recipe:
    fixed: dict[str, Any] = {
        "epochs": EPOCHS, "batch_size": 16, "clip_norm": None, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0,
        "patience": None, "lr_search": None, "lr_search_epochs": 1, "optimizer": {}, "schedule": {},
        "accumulation": 1, "ema": None, "decay_norms": True, "backbone_lr_factor": None, "freeze_batch_norm": False,
    }  # fmt: skip
    return Recipe(**{**fixed, **changes})


def make(
    objective: Objective | None = None,
    guide: LiveTeacher | None = None,
    schedule: Schedule | None = None,
    lr: float = 0.05,
    student: Network | None = None,
    points: dict[str, str] | None = None,
    select_by: str = "accuracy",
    **changes: Any,
) -> Trainer:
    student = student or network()
    objective = objective or CrossEntropy(label_smoothing=0.0)
    views = Views(split(50, seed=1), steps(crop=1, flip=True), ViewChoice(5, None, 0.0, 0.0))
    loss = TotalLoss({objective.part: objective}, label_smoothing=0.0)
    recipe = make_recipe(optimizer={"lr": lr}, **changes)
    learner = Learner(
        stage="student",
        network=student,
        loss=loss,
        guide=guide,
        points=points or {},
        optimizer=torch.optim.SGD(parameter_groups(student, loss, recipe, "training.student"), lr=lr, momentum=0.9),
        recipe=recipe,
        seed=5,
        device=device(),
    )
    return Trainer(
        learner,
        schedule=schedule or Constant(epochs=EPOCHS, warmup_epochs=0),
        batches=MemoryBatches(views, 16, seed=5),
        val=split(20, seed=2),
        select_by=select_by,
    )


def soft_targets(alpha: float = 0.7) -> SoftTargets:
    return SoftTargets(temperature=2.0, alpha=alpha, weight=1.0, divergence="forward", standardize_logits=False)


class Watcher:
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        self.losses.append(loss.item())

    def epoch_ended(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def state_saved(self, state: dict[str, Any]) -> None:
        self.saved.append(state)


def fit(trainer: Trainer) -> Watcher:
    watcher = Watcher()
    with StopRequest() as stop:
        trainer.fit(watcher, stop)
    return watcher
