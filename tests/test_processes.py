"""Two processes train as one does: the second one stands beside pytest's, and both do what a test gives them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from distill_run.build import Builder
from distill_run.config.compose import config_dir
from distill_run.data.batches import UNLABELLED
from distill_run.data.feed import MemoryBatches
from distill_run.data.source import Split
from distill_run.data.views import ViewChoice, Views
from distill_run.engine.launch import started
from distill_run.engine.loop import Trainer
from distill_run.objectives.base import FeatureObjective, Objective, Pair
from distill_run.objectives.total import TotalLoss
from distill_run.processes import ALONE, Processes
from distill_run.stages.live_teacher import LiveTeacher
from helpers import steps
from trainers import device, device_settings, fit, make, network, soft_targets, split

Act = Callable[[Processes], Any]
MODES = ("sp", "crd", "review_kd")  # review_kd has batch norm of its own
MORE_MODES = ("rkd", "pkt", "dist", "fitnet", "attention", "vid", "dkd")
POINTS = {"student_points": ["maps"], "teacher_points": ["maps"]}
VECTORS = {"student_points": ["vectors"], "teacher_points": ["vectors"]}
PLACES = {"maps": "2", "vectors": "3"}


def obey(processes: Processes) -> None:
    """What the second process does: whatever the first one says."""
    while True:
        act: Act | None = processes.from_first(lambda: None)
        if act is None:
            return
        act(processes)


@pytest.fixture(scope="module")
def group() -> Iterator[Processes]:
    with started(ALONE, device_settings(num_processes=2), obey) as processes:
        yield processes
        processes.from_first(lambda: None)


def both(act: Act, group: Processes) -> Any:
    """What `act`, which both processes do, returns in this one."""
    group.from_first(lambda: act)
    return act(group)


def among(trainer: Trainer, processes: Processes) -> Trainer:
    trainer.learner.processes = trainer.batches.processes = processes
    return trainer


def trained(build: Callable[[], Trainer], processes: Processes) -> tuple[dict[str, Tensor], list[Any]]:
    """The weights and the loss's own after a training, and its epochs."""
    trainer = among(build(), processes)
    watcher = fit(trainer)
    state = trainer.state()
    tensors = {**state["network"], **{f"loss.{name}": value for name, value in state["loss"].items()}}
    return {**tensors, **(state["average"] or {})}, [(row["train"], row["val"]) for row in watcher.rows]


def assert_same_training(build: Callable[[], Trainer], group: Processes, tolerance: float = 1e-5) -> None:
    weights, rows = both(partial(trained, build), group)
    alone, own_rows = trained(build, ALONE)
    assert weights.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(weights[name], value, atol=tolerance, rtol=tolerance, msg=name)
    for (train, val), (own_train, own_val) in zip(rows, own_rows, strict=True):
        assert train == pytest.approx(own_train, rel=1e-4, abs=1e-5)
        assert val == pytest.approx(own_val, rel=1e-3, abs=1e-4)


def objective_of(mode: str) -> Objective:
    """The objective of a mode's file, fitted to two tiny networks; its weight is 1."""
    node = yaml.safe_load((config_dir() / "mode" / f"{mode}.yaml").read_text(encoding="utf-8"))
    small = {"crd": {**VECTORS, "embedding_size": 4, "num_negatives": 8}, "pkt": VECTORS, "rkd": VECTORS}
    points = {} if "student_points" not in node else POINTS
    objective = Builder().build({**node, **points, **small.get(mode, {}), "weight": 1.0}, "mode")
    assert isinstance(objective, Objective)
    if isinstance(objective, FeatureObjective):
        shapes = [(64,)] if mode in small else [(4, 4, 4)]
        with torch.random.fork_rng():
            torch.manual_seed(3)
            objective.fit_to(Pair(shapes, shapes, split(50, seed=1).targets, 3, seed=0))
    return objective


def of_15(trainer: Trainer) -> Trainer:
    """Batches of 15 and, at last, of 5 images: neither can be halved."""
    trainer.batches.batch_size = 15
    trainer.learner.recipe = replace(trainer.learner.recipe, batch_size=15)
    return trainer


def guided(mode: str) -> Trainer:
    teacher = LiveTeacher(network(seed=9), device(), PLACES)
    # Slow steps: fast ones multiply a difference in rounding by 1,000 in 12 steps of dist, also in one process.
    return of_15(make(objective_of(mode), teacher, points=PLACES, lr=0.005, epochs=1))


@pytest.mark.parametrize("mode", [*MODES, *(pytest.param(mode, marks=pytest.mark.slow) for mode in MORE_MODES)])
def test_each_objective_sees_the_whole_batch(mode: str, group: Processes) -> None:
    assert_same_training(partial(guided, mode), group)


def weighted() -> Trainer:
    """Class weights, labels that are missing, mixed images, two batches a step, clipped gradients, their average."""
    trainer = make(
        soft_targets(), LiveTeacher(network(seed=9), device()), accumulation=2, clip_norm=0.5, ema=0.9, epochs=2
    )
    images = split(50, seed=1)
    targets = torch.cat([images.targets[:30], torch.full((20,), UNLABELLED)])
    views = Views(Split(images.images, targets), steps(crop=1, flip=True), ViewChoice(5, None, 0.8, 0.0))
    trainer.batches = MemoryBatches(views, 15, seed=5)
    trainer.learner.loss = TotalLoss(dict(trainer.learner.loss.terms), 0.1, [0.5, 1.0, 1.5])
    return of_15(trainer)


def test_uneven_accumulated_weighted_unlabelled_and_mixed_batches(group: Processes) -> None:
    assert_same_training(weighted, group)
