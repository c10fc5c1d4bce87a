"""How fast a student is distilled: our loop against the usual one, in turn, over the same pair of networks.

    python -m distill_run.benchmark [teacher=cnn_large] [student=cnn_small] [any other override]

The usual loop is what most programs do: a Dataset of PIL images, torchvision's transforms (crop, flip, to tensor,
normalise) in the two workers of a DataLoader, fp32, the teacher live. Ours is fit.Trainer with the teacher live, in
the precision of `device`. The images are noise in the shape of CIFAR-10's: what they show does not change the speed.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from distill_run.build import Builder
from distill_run.config import check, compose_config
from distill_run.console import Console
from distill_run.data.source import Source, Split
from distill_run.data.splits import make_dataset
from distill_run.device import choose_device
from distill_run.interrupt import StopRequest
from distill_run.losses import cross_entropy, soft_target_loss
from distill_run.models.network import ImageShape
from distill_run.objectives.soft import SoftTargets
from distill_run.schema import Settings
from distill_run.stages.student import baseline_plan
from distill_run.stages.teacher import LiveTeacher
from distill_run.stages.training import Bench, make_network, make_trainer
from distill_run.store import Store

NUM_IMAGES = 2560
ROUNDS = 3


def main(arguments: Sequence[str]) -> None:
    """Time both loops in turn and print images a second of each and their ratio."""
    settings = check(compose_config(["dataset=cifar10", "training.student.epochs=1", *arguments]))
    console = Console()
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        bench = _bench(settings, Path(folder), console, stop)
        pairs = [(time_usual_loop(bench), time_our_loop(bench)) for _ in range(ROUNDS + 1)][1:]  # the first warms up
    usual, ours = (median(speeds) for speeds in zip(*pairs, strict=True))
    names, device = settings.names, bench.device.settings
    console.note(f"{names.teacher} -> {names.student}, batch {settings.training.student.batch_size}, on {device.kind}")
    console.note(f"DataLoader + PIL, fp32      {usual:>9,.0f} images/s")
    console.note(f"distill-run, {device.precision:<14} {ours:>9,.0f} images/s")
    console.note(f"ratio                       {median(our / other for other, our in pairs):>9.2f}")


def _bench(settings: Settings, folder: Path, console: Console, stop: StopRequest) -> Bench:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(NUM_IMAGES) % 10)
    small = split.select(torch.arange(10))
    device = choose_device(settings.device)
    dataset = make_dataset(Source(split, small, small, tuple("0123456789")), 0.1, 0)
    return Bench(
        settings=settings,
        dataset=dataset.to(device.torch_device),
        shape=ImageShape(3, (32, 32), 10),
        device=device,
        builder=Builder(tuple(settings.trusted_packages)),
        store=Store(folder, console.note),
        run_dir=folder,
        console=console,
        stop=stop,
        resumed=None,
        metrics=[],
    )


def time_our_loop(bench: Bench) -> float:
    """Images a second of one epoch of fit.Trainer."""
    teacher = make_network(bench.settings.teacher, "teacher", 0, bench)
    objective = SoftTargets(temperature=4.0, alpha=0.5, divergence="forward", label_smoothing=0.0)
    plan = dataclasses.replace(baseline_plan(bench), objective=objective)
    trainer = make_trainer(plan, bench, LiveTeacher(teacher, bench.device))
    trainer.fit(_Nobody(), lambda state: None, bench.stop)  # noqa: ARG005
    speed: float = trainer.history[0]["images_per_second"]
    return speed


def time_usual_loop(bench: Bench) -> float:
    """Images a second of one epoch of a plain loop, the start of its workers left out."""
    device = bench.device.torch_device
    teacher = make_network(bench.settings.teacher, "teacher", 0, bench).to(memory_format=torch.contiguous_format)
    student = make_network(bench.settings.student, "student", 0, bench).to(memory_format=torch.contiguous_format)
    teacher.architecture.eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batch_size = bench.settings.training.student.batch_size
    loader = DataLoader(_PILDataset(bench.dataset.train), batch_size, shuffle=True, num_workers=2, drop_last=True)
    with ExitStack() as stack:
        batches = iter(loader)
        stack.callback(batches._shutdown_workers)  # type: ignore[attr-defined]
        _usual_step(teacher, student, optimizer, next(batches), device)
        start, num_images = time.perf_counter(), 0
        for batch in batches:
            _usual_step(teacher, student, optimizer, batch, device)
            num_images += batch_size
        return num_images / (time.perf_counter() - start)


def _usual_step(teacher: Any, student: Any, optimizer: Any, batch: list[Tensor], device: torch.device) -> None:
    images, targets = (tensor.to(device) for tensor in batch)
    with torch.no_grad():
        teacher_logits = teacher.architecture(images)
    logits = student.architecture(images)
    loss = 0.5 * cross_entropy(logits, targets) + 0.5 * soft_target_loss(logits, teacher_logits, 4.0)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    loss.item()


class _PILDataset(TorchDataset[tuple[Tensor, int]]):
    """A split as torchvision serves it: one PIL image at a time, transformed on its way."""

    def __init__(self, split: Split) -> None:
        from torchvision import transforms

        self.images = split.images.permute(0, 2, 3, 1).cpu().numpy()
        self.targets = split.targets.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


class _Nobody:
    """A fit.Watcher that does not look."""

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        """See fit.Watcher."""

    def finished_epoch(self, row: dict[str, Any]) -> None:
        """See fit.Watcher."""


if __name__ == "__main__":
    main(sys.argv[1:])
