"""Two processes train as one does: the second one stands beside pytest's, and both do what a test gives them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from conftest import InProcess
from distill_run.build import Builder
from distill_run.commands import installed
from distill_run.config.compose import config_dir
from distill_run.data.batches import UNLABELLED
from distill_run.data.feed import MemoryBatches
from distill_run.data.source import Split
from distill_run.data.views import ViewChoice, Views
from distill_run.engine import gradient_sums
from distill_run.engine.device import Device, choose_device
from distill_run.engine.evaluate import CHUNK_SIZE, predict
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.launch import started
from distill_run.engine.loop import Trainer
from distill_run.errors import Interrupted
from distill_run.listener import NOBODY
from distill_run.objectives.base import FeatureObjective, Objective, Pair
from distill_run.objectives.total import TotalLoss
from distill_run.processes import ALONE, TORCHRUN, Processes
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.store import Store
from helpers import message_of, steps
from trainers import Watcher, device, device_settings, fit, make, network, soft_targets, split

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
        assert act is not None
        act(processes)


@pytest.fixture(scope="module")
def group() -> Iterator[Processes]:
    with started(ALONE, device_settings(num_processes=2), obey) as processes:
        yield processes  # the other process is then killed, whatever it waits for


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
    small: dict[str, dict[str, Any]] = {"crd": {**VECTORS, "embedding_size": 4, "num_negatives": 8}}
    small |= dict.fromkeys(("pkt", "rkd"), VECTORS)
    points: dict[str, Any] = {} if "student_points" not in node else POINTS
    objective = Builder().build({**node, **points, **small.get(mode, {}), "weight": 1.0}, "mode")
    assert isinstance(objective, Objective)
    if isinstance(objective, FeatureObjective):
        shapes: list[tuple[int, ...]] = [(64,)] if mode in small else [(4, 4, 4)]
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


class Doubles(Processes):
    """Two processes with equal gradients; `missing` says which gradients were not there when each sum began."""

    size = 2

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing: list[list[bool]] = []

    def begin_sum(self, tensors: Sequence[Tensor]) -> Callable[[], None]:
        self.missing.append([parameter.grad is None for parameter in self.parameters])

        def finish() -> None:
            for each in tensors:
                each.mul_(2)

        return finish


def test_gradients_are_summed_while_the_backward_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_sums, "BUCKET_BYTES", 1)
    unused, first, last = (nn.Parameter(torch.rand(3, 3)) for _ in range(3))
    parameters = [unused, first, last]
    loss = (torch.ones(2, 3) @ first @ last).sum()
    expected = torch.autograd.grad(loss, parameters[1:], retain_graph=True)
    processes = Doubles(parameters)
    with gradient_sums.summed_gradients(parameters, [last], processes):
        loss.backward()  # type: ignore[no-untyped-call]
    assert processes.missing == [[True, True, False], [True, False, False], [True, False, False]]
    assert unused.grad is None
    torch.testing.assert_close(first.grad, 2 * expected[0])  # a sum
    torch.testing.assert_close(last.grad, expected[1])  # a mean


def weighted(mixup: float) -> Trainer:
    """Class weights, missing labels, two batches a step, clipped gradients, an average; mixed images if asked for."""
    trainer = make(
        soft_targets(), LiveTeacher(network(seed=9), device()), accumulation=2, clip_norm=0.5, ema=0.9, epochs=2
    )
    images = split(50, seed=1)
    targets = torch.cat([images.targets[:30], torch.full((20,), UNLABELLED)])
    views = Views(Split(images.images, targets), steps(crop=1, flip=True), ViewChoice(5, None, mixup, 0.0))
    trainer.batches = MemoryBatches(views, 15, seed=5)
    trainer.learner.loss = TotalLoss(dict(trainer.learner.loss.terms), 0.1, [0.5, 1.0, 1.5])
    return of_15(trainer)


@pytest.mark.parametrize("mixup", [0.0, pytest.param(0.8, marks=pytest.mark.slow)])  # which imports scipy
def test_uneven_accumulated_weighted_and_unlabelled_batches(mixup: float, group: Processes) -> None:
    assert_same_training(partial(weighted, mixup), group)


def unsynced(processes: Processes) -> tuple[dict[str, Tensor], float]:
    """The weights after an epoch without sync_batch_norm, and how far those of the processes are apart."""
    trainer = among(make(epochs=1), processes)
    trainer.learner.device = Device(device_settings(sync_batch_norm=False), ())
    fit(trainer)
    weights = trainer.state()["network"]
    own = torch.cat([value.double().flatten() for value in weights.values()]).unsqueeze(0)
    both_own = processes.gather(own, [1, 1])
    return weights, (both_own[0] - both_own[-1]).abs().max().item()


def test_batch_norm_of_each_process_alone(group: Processes) -> None:
    """It is another training then; all processes measure the network with the statistics of the first one."""
    weights, others = both(unsynced, group)
    assert others == 0
    alone, _ = trained(partial(make, epochs=1), ALONE)
    assert (weights["architecture.1.running_var"] - alone["architecture.1.running_var"]).abs().max() > 1e-4


def made_together(folder: Path, processes: Processes) -> list[Any]:
    """What two processes see of an entry, which is asked for twice, and of a part of it."""
    store, makers = Store(folder, NOBODY, processes=processes), []

    def make_entry(directory: Path) -> dict[str, Any]:
        makers.append(directory.parent.parent == folder)
        (directory / "maker").write_text(str(processes.rank))
        return {}

    def make_part(path: Path) -> None:
        ranks = processes.gather(torch.tensor([processes.rank]), [1, 1])
        path.write_text(str(ranks.tolist()))

    path, was_there = store.obtain("teacher", "a", make_entry)
    again = store.obtain("teacher", "a", make_entry)
    part = store.obtain_part("teacher", "a", "part", make_part)
    seen = [was_there, again == (path, True), (path / "maker").read_text(), part.read_text(), makers]
    return [seen, processes.gather(torch.tensor([int(makers == [processes.is_first])]), [1, 1]).tolist()]


def test_an_entry_of_the_store_is_made_together_and_written_once(group: Processes, tmp_path: Path) -> None:
    """Each process makes it once; the second one in a folder that is not the store's."""
    assert both(partial(made_together, tmp_path), group) == [[False, True, "0", "[0, 1]", [True]], [1, 1]]
    assert sorted(path.name for path in (tmp_path / "teacher" / "a").iterdir()) == ["maker", "meta.json", "part"]
    assert not list((tmp_path / ".locks").glob(".shared*"))


def logits_of(num_images: int, processes: Processes) -> Tensor:
    return predict(network(), split(num_images, seed=4), processes)


@pytest.mark.parametrize("num_images", [3 * CHUNK_SIZE - 7, 20])
def test_an_evaluation_in_shares_is_equal_to_the_bit(num_images: int, group: Processes) -> None:
    """Also where there is a single chunk."""
    assert torch.equal(both(partial(logits_of, num_images), group), logits_of(num_images, ALONE))


def asked_to_stop(processes: Processes) -> list[int]:
    """The step after which each process stops, if the second one is asked to before the third step."""
    trainer, stop = among(make(), processes), StopRequest(only_notes=True)
    try:
        for step in trainer.steps(Watcher(), stop):
            step.take()
            if trainer.step == 2 and not processes.is_first:
                stop.request(Interrupted())
    except Interrupted:
        return processes.gather(torch.tensor([trainer.step]), [1, 1]).tolist()
    return []


def test_all_processes_stop_after_the_same_step(group: Processes) -> None:
    assert both(asked_to_stop, group) == [2, 2]


class OneOf(Processes):
    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def test_shares_are_disjoint_and_complete() -> None:
    shares = [OneOf(rank, 4).share(10) for rank in range(4)]
    assert [list(range(10))[share] for share in shares] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    assert OneOf(0, 4).share_sizes(10) == [2, 3, 2, 3]
    assert OneOf(0, 3).share_sizes(1100, chunk_size=500) == [500, 500, 100]
    assert OneOf(0, 3).share_sizes(1) == [0, 0, 1]
    assert [OneOf(rank, 3).share(1) for rank in range(3)] == [slice(0, 1)] * 3  # two of them only help


def test_a_training_does_not_depend_on_how_many_share_it() -> None:
    one = device_settings()
    assert device_settings(num_processes=2).inputs == one.inputs == device_settings(sync_batch_norm=False).inputs
    assert device_settings(num_processes=2, sync_batch_norm=False).inputs != one.inputs


def test_a_store_that_is_not_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_run.shared_folder.SHARED_SECONDS", 0.0)
    second = OneOf(1, 2)
    monkeypatch.setattr(second, "from_first", lambda _: tmp_path / "not" / "here")
    assert message_of(Store(tmp_path, NOBODY, processes=second).check_shared) == (
        f"store_dir: process 2 of 2 does not see {tmp_path / 'not' / 'here'}, which the first process has written\n"
        "  give a folder that all machines share, as in store_dir=/shared/store"
    )


def test_processes_that_would_make_something_else_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = OneOf(1, 2)
    monkeypatch.setattr(second, "from_first", lambda _: tmp_path / "teacher" / "other")
    store = Store(tmp_path, NOBODY, processes=second)
    assert message_of(store.obtain, "teacher", "own", lambda _: {}) == (
        f"process 2 of 2 would make {tmp_path}/teacher/own, and the first one {tmp_path}/teacher/other: "
        "their programs or their images are not the same\n"
        "  install the same version of everything on all machines, and give all of them the same dataset"
    )


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert message_of(choose_device, device_settings(kind="cuda", num_processes=4)) == (
        "device.num_processes=4, but there are 2 GPUs\n  write device.num_processes=2, or device=cpu"
    )


def test_torchrun_does_one_run(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.setenv(name, "0")
    status, _, told = in_process(installed.run, "distill-run", "-m", "mode.temperature=1,2")
    assert (status, told) == (
        1,
        "error: torchrun starts the processes of one run, and this command asks for several runs\n"
        "  write it without torchrun, with device.num_processes=2 for two processes in each run\n",
    )
