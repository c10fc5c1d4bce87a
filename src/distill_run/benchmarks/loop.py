"""Compares the speed of distillation in our loop and in the usual one, in turn, with the same pair of networks.

    python -m distill_run.benchmarks.loop [teacher=cnn_large] [student=cnn_small] [any other override]

The usual loop is what most programs do: a Dataset of PIL images, torchvision's transforms (crop, flip, to tensor,
normalise) in the two workers of a DataLoader, fp32, the teacher live. Ours is engine.loop.Trainer in the precision of
`device`: first with the teacher live, then with the logit bank, which is compared with forward, backward and step
alone. The images are noise in the shape of CIFAR-10's: what they show does not change the speed.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader

from distill_run.benchmarks.usual import NUM_WORKERS, PILDataset, train_step
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.feed import MemoryFeed
from distill_run.data.source import Source, Split
from distill_run.data.splits import Fractions, make_dataset
from distill_run.data.view_steps import build_steps
from distill_run.engine.device import choose_device
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.protocols import Guide
from distill_run.listener import NOBODY
from distill_run.models.network import Network
from distill_run.stages.assembly import Prepared, TeacherShape
from distill_run.stages.budget import complete_training
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher
from distill_run.stages.plans import Planner
from distill_run.stages.prepare import builder_of
from distill_run.stages.training import Training
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop, make_trainer
from distill_run.store import Store

NUM_IMAGES = 2560
ROUNDS = 3


def main(arguments: Sequence[str]) -> None:
    """Time all loops in turn and print images a second of each, and ratios."""
    usual = ["training.student.epochs=1", "training.student.batch_size=128", "device.precision=fp32"]
    settings = compose_config(["dataset=cifar10", "mode.alpha=0.5", "repeats=1", *usual, *arguments])
    training, _ = complete_training(settings.training, NUM_IMAGES)
    settings = replace(settings, training=training)
    console = Console()
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        workshop = noise_workshop(settings, Path(folder), stop, NUM_IMAGES)
        planner = Planner(settings, workshop.feed, workshop.builder)
        (teacher,), student = planner.teachers(), planner.students()[0]
        network = workshop.assembler.make_network(teacher, teacher.architecture.node).eval()
        live = LiveTeacher(network, workshop.device)
        bank = BankedTeacher(network, "untrained", student, workshop)
        loops: dict[str, Callable[[], float]] = {
            "DataLoader + PIL, fp32": lambda: time_usual_loop(workshop, student, teacher),
            "distill-run, teacher live": lambda: time_our_loop(workshop, student, network, live),
            "distill-run, logit bank": lambda: time_our_loop(workshop, student, network, bank),
            "forward, backward, step": lambda: time_bare_loop(workshop, student),
        }
        rounds = [[loop() for loop in loops.values()] for _ in range(ROUNDS + 1)][1:]  # the first warms up
    names, device = settings.names, workshop.device.settings
    batch_size = settings.training.student.batch_size
    console.note(f"{names.teacher} -> {names.student}, batch {batch_size}, {device.kind}, {device.precision}, images/s")
    for label, speeds in zip(loops, zip(*rounds, strict=True), strict=True):
        console.note(f"{label:<26}{median(speeds):>9,.0f}")
    console.note(f"live / DataLoader         {median(live / usual for usual, live, _, _ in rounds):>9.2f}")
    console.note(f"logit bank / bare loop    {median(bank / bare for _, _, bank, bare in rounds):>9.2f}")


def noise_workshop(settings: Settings, folder: Path, stop: StopRequest, num_images: int) -> Workshop:
    """A workshop whose training images are noise in the shape of CIFAR-10's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(num_images) % 10)
    small = split.select(torch.arange(10))
    device, builder = choose_device(settings.device), builder_of(settings)
    source = Source(split, small, small, tuple("0123456789"))
    dataset = make_dataset(source, Fractions(test=0.1, val=0.1, train=1.0, seed=0)).to(device.torch_device)
    return Workshop(
        feed=MemoryFeed(dataset, build_steps(settings.dataset.augment, builder).augmentations),
        device=device,
        builder=builder,
        store=Store(folder, NOBODY, {}),
        watcher=Watcher(),
        stop=stop,
        bank_gigabytes=settings.logit_bank_gigabytes,
        checkpoint_minutes=None,
        finished=None,
        resume_point=None,
    )


def time_our_loop(workshop: Workshop, student: Training, teacher: Network, guide: Guide) -> float:
    """Images a second of one epoch of engine.loop.Trainer in soft mode."""
    assembly = workshop.assembler.assemble(student, TeacherShape(teacher, {}))
    trainer = make_trainer(Prepared(student, assembly, guide), workshop)
    trainer.fit(Watcher(), workshop.stop)
    speed: float = trainer.history[0]["images_per_second"]
    return speed


def time_usual_loop(
    workshop: Workshop,
    student: Training,
    teacher: Training,
    num_workers: int = NUM_WORKERS,
    seconds: float = math.inf,
) -> float:
    """Images a second of one epoch of a plain loop, without the time in which its workers start.

    It ends after so many `seconds` if the epoch has not ended by then.
    """
    network, optimizer = _student(workshop, student, torch.contiguous_format)
    guide = workshop.assembler.make_network(teacher, teacher.architecture.node).to(
        memory_format=torch.contiguous_format
    )
    guide.eval()
    device, batch_size, split = workshop.device.torch_device, student.recipe.batch_size, _training_split(workshop)
    images = split.images.permute(0, 2, 3, 1).cpu().numpy()
    dataset = PILDataset(images, split.targets.tolist(), augment=True)
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers, drop_last=True)
    batches = iter(loader)
    train_step(network, guide.architecture, optimizer, [tensor.to(device) for tensor in next(batches)])
    start, num_images = time.perf_counter(), 0
    for batch in batches:
        train_step(network, guide.architecture, optimizer, [tensor.to(device) for tensor in batch])
        num_images += batch_size
        if time.perf_counter() - start >= seconds:
            break
    return num_images / (time.perf_counter() - start)


def time_bare_loop(workshop: Workshop, student: Training) -> float:
    """Images a second of forward, backward and step alone, on normalised batches that lie in memory."""
    network, optimizer = _student(workshop, student, None)
    batch_size, split = student.recipe.batch_size, _training_split(workshop)
    images = ((split.images.float() / 255) - 0.47) / 0.25
    batches = list(zip(torch.split(images, batch_size), torch.split(split.targets, batch_size), strict=True))
    start = time.perf_counter()
    for inputs, targets in batches:
        with workshop.device.autocast():
            logits = network(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    if workshop.device.settings.kind == "cuda":
        torch.cuda.synchronize()
    return len(split) / (time.perf_counter() - start)


def _training_split(workshop: Workshop) -> Split:
    assert isinstance(workshop.feed, MemoryFeed)
    return workshop.feed.train


def _student(
    workshop: Workshop, student: Training, memory_format: torch.memory_format | None
) -> tuple[Any, torch.optim.Optimizer]:
    """The student's architecture, in the format that the program chooses where none is given, and its optimizer."""
    network = workshop.assembler.make_network(student, student.architecture.node)
    if memory_format is not None:
        network = network.to(memory_format=memory_format)
    optimizer = workshop.builder.build(student.recipe.optimizer, "optimizer", params=list(network.parameters()))
    return network.architecture, optimizer


if __name__ == "__main__":
    main(sys.argv[1:])
