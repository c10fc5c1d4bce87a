"""How fast a student is distilled: our loop against the usual one, in turn, over the same pair of networks.

    python -m distill_run.benchmarks.loop [teacher=cnn_large] [student=cnn_small] [any other override]

The usual loop is what most programs do: a Dataset of PIL images, torchvision's transforms (crop, flip, to tensor,
normalise) in the two workers of a DataLoader, fp32, the teacher live. Ours is fit.Trainer with the teacher live, in
the precision of `device`, then with the logit bank, which is compared with forward, backward and step alone. The
images are noise in the shape of CIFAR-10's: what they show does not change the speed.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from distill_run.benchmarks.usual import NUM_WORKERS, PILDataset, train_step
from distill_run.build import Builder
from distill_run.config.compose import check, compose_config
from distill_run.config.schema import Settings
from distill_run.console import Console
from distill_run.data.augment import build_augmentations
from distill_run.data.feed import MemoryFeed
from distill_run.data.source import ImageShape, Source, Split
from distill_run.data.splits import make_dataset
from distill_run.engine.device import choose_device
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Guide
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from distill_run.stages.logit_bank import BankedTeacher
from distill_run.stages.student import baseline_plan
from distill_run.stages.teacher import LiveTeacher
from distill_run.stages.training import Bench, make_network, make_trainer, view_choice
from distill_run.store import Store

NUM_IMAGES = 2560
ROUNDS = 3


def main(arguments: Sequence[str]) -> None:
    """Time all loops in turn and print images a second of each, and ratios."""
    settings = check(compose_config(["dataset=cifar10", "training.student.epochs=1", *arguments]))
    console = Console()
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        bench = _bench(settings, Path(folder), console, stop)
        network = make_network(bench.settings.teacher, "teacher", 0, bench).eval()
        live = LiveTeacher(network, bench.device)
        bank = BankedTeacher(network, "untrained", view_choice(baseline_plan(bench), bench), bench)
        loops: dict[str, Callable[[], float]] = {
            "DataLoader + PIL, fp32": lambda: time_usual_loop(bench),
            "distill-run, teacher live": lambda: time_our_loop(bench, live),
            "distill-run, logit bank": lambda: time_our_loop(bench, bank),
            "forward, backward, step": lambda: time_bare_loop(bench),
        }
        rounds = [[loop() for loop in loops.values()] for _ in range(ROUNDS + 1)][1:]  # the first warms up
    names, device = settings.names, bench.device.settings
    batch_size = settings.training.student.batch_size
    console.note(f"{names.teacher} -> {names.student}, batch {batch_size}, {device.kind}, {device.precision}, images/s")
    for label, speeds in zip(loops, zip(*rounds, strict=True), strict=True):
        console.note(f"{label:<26}{median(speeds):>9,.0f}")
    console.note(f"live / DataLoader         {median(live / usual for usual, live, _, _ in rounds):>9.2f}")
    console.note(f"logit bank / bare loop    {median(bank / bare for _, _, bank, bare in rounds):>9.2f}")


def _bench(settings: Settings, folder: Path, console: Console, stop: StopRequest) -> Bench:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(NUM_IMAGES) % 10)
    small = split.select(torch.arange(10))
    device = choose_device(settings.device)
    dataset = make_dataset(Source(split, small, small, tuple("0123456789")), 0.1, 1.0, 0).to(device.torch_device)
    builder = Builder(tuple(settings.trusted_packages))
    feed = MemoryFeed(dataset, build_augmentations(settings.dataset.augment, builder))
    return Bench(
        settings=settings,
        dataset=feed,
        shape=ImageShape(3, (32, 32), 10),
        device=device,
        builder=builder,
        store=Store(folder, console.note),
        run_dir=folder,
        console=console,
        stop=stop,
        resumed=None,
        metrics=[],
    )


def time_our_loop(bench: Bench, guide: Guide) -> float:
    """Images a second of one epoch of fit.Trainer in soft mode."""
    objective = SoftTargets(temperature=4.0, alpha=0.5, weight=1.0, divergence="forward", standardize_logits=False)
    loss = TotalLoss({objective.part: objective}, label_smoothing=0.0)
    trainer = make_trainer(dataclasses.replace(baseline_plan(bench), loss=loss), bench, guide)
    trainer.fit(_Nobody(), lambda state: None, bench.stop)  # noqa: ARG005
    speed: float = trainer.history[0]["images_per_second"]
    return speed


def time_usual_loop(bench: Bench) -> float:
    """Images a second of one epoch of a plain loop, the start of its workers left out."""
    student, optimizer = _student(bench, torch.contiguous_format)
    teacher = make_network(bench.settings.teacher, "teacher", 0, bench).to(memory_format=torch.contiguous_format)
    teacher.eval()
    device, batch_size = bench.device.torch_device, bench.settings.training.student.batch_size
    images = bench.dataset.train.images.permute(0, 2, 3, 1).cpu().numpy()
    dataset = PILDataset(images, bench.dataset.train.targets.tolist(), augment=True)
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
    with ExitStack() as stack:
        batches = iter(loader)
        stack.callback(batches._shutdown_workers)  # type: ignore[attr-defined]
        train_step(student, teacher.architecture, optimizer, [tensor.to(device) for tensor in next(batches)])
        start, num_images = time.perf_counter(), 0
        for batch in batches:
            train_step(student, teacher.architecture, optimizer, [tensor.to(device) for tensor in batch])
            num_images += batch_size
        return num_images / (time.perf_counter() - start)


def time_bare_loop(bench: Bench) -> float:
    """Images a second of forward, backward and step alone, on normalised batches that lie in memory."""
    student, optimizer = _student(bench, None)
    batch_size = bench.settings.training.student.batch_size
    split = bench.dataset.train
    images = ((split.images.float() / 255) - 0.47) / 0.25
    batches = list(zip(torch.split(images, batch_size), torch.split(split.targets, batch_size), strict=True))
    start = time.perf_counter()
    for inputs, targets in batches:
        with bench.device.autocast():
            logits = student(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if bench.device.settings.kind == "cuda":
        torch.cuda.synchronize()
    return len(split) / (time.perf_counter() - start)


def _student(bench: Bench, memory_format: torch.memory_format | None) -> tuple[Any, torch.optim.Optimizer]:
    """The student's architecture, in the format that the program chooses where none is given, and its optimizer."""
    network = make_network(bench.settings.student, "student", 0, bench)
    if memory_format is not None:
        network = network.to(memory_format=memory_format)
    recipe = bench.settings.training.student.optimizer
    return network.architecture, bench.builder.build(recipe, "optimizer", params=list(network.parameters()))


class _Nobody:
    """A fit.Watcher that does not look."""

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """See fit.Watcher."""

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """See fit.Watcher."""


if __name__ == "__main__":
    main(sys.argv[1:])
