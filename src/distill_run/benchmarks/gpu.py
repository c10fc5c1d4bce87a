"""How near to a GPU's limit distillation comes: its speed beside that of a plain loop and of a bare loop.

    python -m distill_run.benchmarks.gpu [--pairs cnn_large:cnn_small,...] [--compile off,max] [override ...]

For each pair of networks, images a second of: a plain loop (PIL images in a DataLoader, fp32, the teacher live, eager);
ours with the teacher live and from the logit bank; and two bare loops in our precision, which repeat one batch that
lies on the GPU: forward of both networks, loss, backward and step; and the same of the student alone. The share of the
peak is that of the FLOP/s that the GPU's maker states for the precision. The images are noise in the shape of
CIFAR-10's, which does not change the speed. The first epoch of a loop warms up; what is printed is the median of the
others, as many as fit into --seconds, but one at least.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from distill_run.benchmarks.loop import noise_workshop, time_usual_loop
from distill_run.benchmarks.peaks import flops_of, peak_flops
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.batches import Batch
from distill_run.engine.compilation import compiled
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.protocols import Guide
from distill_run.errors import leave, user_error
from distill_run.losses.logits import cross_entropy, soft_target_loss
from distill_run.models.network import Network
from distill_run.stages.assembly import Prepared, TeacherShape
from distill_run.stages.budget import complete_training
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.logit_bank import BankedTeacher
from distill_run.stages.plans import Planner
from distill_run.stages.training import Training
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import Workshop, make_trainer

PAIRS = "cnn_large:cnn_small,resnet56:resnet20,resnet32x4:resnet8x4"
STEPS = 20  # of a bare loop between two looks at the clock
EVERYTHING = 1_000_000  # epochs, more than any GPU comes to


@dataclass(frozen=True)
class Bench:
    """A pair whose speed is measured, for so many seconds a loop."""

    workshop: Workshop
    student: Training
    teacher: Training
    network: Network
    seconds: float

    @property
    def live(self) -> LiveTeacher:
        """The teacher, asked for each batch."""
        return LiveTeacher(self.network, self.workshop.device)

    def prepared(self, guide: Guide | None) -> Prepared:
        """A student with fresh weights."""
        shape = TeacherShape(self.network, {})
        return Prepared(self.student, self.workshop.assembler.assemble(self.student, shape), guide)

    def flops(self) -> dict[str, float]:
        """The FLOPs for an image of distillation with the teacher live, and of the student alone."""
        images = self._batch().images
        alone = flops_of(self.prepared(None).assembly.network.train(), images, learns=True)
        asked = flops_of(self.live.network, images, learns=False)
        return {"live": (alone + asked) / len(images), "bank": alone / len(images)}

    def time_ours(self, guide: Guide) -> float:
        """Images a second of our loop."""
        trainer = make_trainer(self.prepared(guide), self.workshop)
        warm = None
        for step in trainer.steps(Watcher(), self.workshop.stop):
            if trainer.history and warm is None:
                warm = time.perf_counter()
            if len(trainer.history) > 1 and warm is not None and time.perf_counter() - warm >= self.seconds:
                break
            step.take()
        speeds: list[float] = [row["images_per_second"] for row in trainer.history[1:]]
        return median(speeds)

    def time_bare(self, guide: Guide | None) -> float:
        """Images a second of forward, backward and step, with those of the teacher if there is a guide."""
        device, batch, network = self.workshop.device, self._batch(), self.prepared(None).assembly.network.train()
        node = device.fused(self.student.recipe.optimizer, "optimizer")
        optimizer = self.workshop.builder.build(node, "optimizer", params=list(network.parameters()))
        forward, scaler = compiled(network, device.settings), device.grad_scaler()

        def step() -> None:
            with device.autocast():
                logits = forward(batch.images)
            loss = cross_entropy(logits, batch.targets)
            if guide is not None:
                loss = loss + soft_target_loss(logits, guide(batch).logits, 4.0)
            optimizer.zero_grad(set_to_none=True)
            with device.backward():
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()

        rounds = [self._seconds_of(step)]
        while len(rounds) < 2 or sum(rounds[1:]) < self.seconds:
            rounds.append(self._seconds_of(step))
        return STEPS * len(batch.targets) / median(rounds[1:])

    def _seconds_of(self, step: Callable[[], None]) -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        if self.workshop.device.settings.kind == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def _batch(self) -> Batch:
        batches = self.workshop.feed.batches(self.student.views, self.student.recipe.batch_size, 0)
        return next(batches.epoch(1))


def main(arguments: Sequence[str]) -> bool:
    """Measure all pairs and print a table of each; returns whether all went well, which is so where it returns."""
    options = _read(arguments)
    console = Console()
    for teacher, student in options.pairs:
        plain = None
        for compile_word in options.compile:
            with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
                words = [f"teacher={teacher}", f"student={student}", f"device.compile={compile_word}"]
                bench = _open(options, words, Path(folder), stop)
                if plain is None:
                    trainings = bench.student, bench.teacher
                    plain = time_usual_loop(bench.workshop, *trainings, options.workers, bench.seconds)
                for line in _table(bench, plain, options.workers):
                    console.note(line)
    return True


def _open(options: Any, words: list[str], folder: Path, stop: StopRequest) -> Bench:
    usual = ["dataset=cifar10", "repeats=1", "training.views=1", f"training.student.epochs={EVERYTHING}"]
    usual += [f"training.student.batch_size={options.batch_size}", f"device={options.device}"]
    settings = compose_config([*usual, *words, *options.overrides])
    training, _ = complete_training(settings.training, options.images)
    workshop = noise_workshop(replace(settings, training=training), folder, stop, options.images)
    settings = replace(settings, training=training, device=workshop.device.settings)
    planner = Planner(settings, workshop.feed, workshop.builder)
    (teacher,), student = planner.teachers(), planner.students()[0]
    network = workshop.assembler.make_network(teacher, teacher.architecture.node).eval()
    device = workshop.device_for(network)  # on a CPU, the precision of each is its own: here, all have the teacher's
    workshop = replace(workshop, device=device)
    return Bench(workshop, replace(student, device=device.settings), teacher, network, options.seconds)


def _table(bench: Bench, plain: float, num_workers: int) -> list[str]:
    """The lines of a pair: images a second of each loop, and what they are of the others."""
    device, names = bench.workshop.device.settings, (bench.teacher, bench.student)
    where = torch.cuda.get_device_name() if device.kind == "cuda" else device.kind
    bank = BankedTeacher(bench.network, "untrained", bench.student, bench.workshop)
    speeds = {
        "live": (bench.time_ours(bench.live), bench.time_bare(bench.live)),
        "bank": (bench.time_ours(bank), bench.time_bare(None)),
    }
    peak, flops = peak_flops(where, device.precision), bench.flops()
    pair = " -> ".join(each.architecture.name for each in names)
    lines = [
        f"{pair}, batch {bench.student.recipe.batch_size}, {where}, {device.precision}, compile={device.compile}, "
        f"torch {torch.__version__}",
        f"{'images/s':<30}{'':>11}{'/ plain':>10}{'/ bare':>10}{'of peak':>10}",
        f"{f'DataLoader, {num_workers} workers, fp32':<30}{plain:>11,.0f}",
    ]
    labels = {"live": "teacher live", "bank": "logit bank"}
    for way, (ours, bare) in speeds.items():
        share = "-" if peak is None else f"{ours * flops[way] / peak:.1%}"
        lines.append(f"{'bare loop' + (' of both' if way == 'live' else ''):<30}{bare:>11,.0f}{bare / plain:>10.1f}")
        lines.append(f"{labels[way]:<30}{ours:>11,.0f}{ours / plain:>10.1f}{ours / bare:>10.2f}{share:>10}")
    return [*lines, ""]


def _read(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m distill_run.benchmarks.gpu", allow_abbrev=False)
    parser.add_argument("--pairs", default=PAIRS, help="TEACHER:STUDENT, separated by commas")
    parser.add_argument("--compile", default="off,max", help="values of device.compile, separated by commas")
    parser.add_argument("--device", default="cuda", help="cpu works, too")
    parser.add_argument("--images", type=int, default=25_600, help="in an epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each loop, after it is warm")
    workers = min(os.cpu_count() or 1, 8)
    parser.add_argument("--workers", type=int, default=workers, help="of the DataLoader of the plain loop")
    parser.add_argument("overrides", nargs="*", help="of all pairs, as in device.precision=tf32")
    options = parser.parse_intermixed_args(arguments)
    options.compile = options.compile.split(",")
    options.pairs = [pair.split(":") for pair in options.pairs.split(",")]
    if any(len(pair) != 2 for pair in options.pairs):
        raise user_error("--pairs wants two networks for each pair", f"write them as in --pairs {PAIRS}")
    return options


if __name__ == "__main__":
    leave(lambda: main(sys.argv[1:]))
