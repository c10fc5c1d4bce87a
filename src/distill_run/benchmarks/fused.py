"""How long twelve students take one after the other, and together, in turn.

    python -m distill_run.benchmarks.fused [--way usual|in-turn|stacked] [--train-images 2560] [override ...]

The students differ in temperature and alpha; the images are noise in the shape of CIFAR-10's: what they show does not
change the speed. The logit bank is filled before the clock starts; with logit_bank_gigabytes=0 the teacher runs live.
`--way` is how students that train together take their steps: `usual` is what hydra/launcher=fused does on this device,
the others force it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median

import torch

from distill_run.benchmarks.loop import noise_workshop
from distill_run.benchmarks.sweep import ALPHAS, TEMPERATURES
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.stacked import StackedTaker
from distill_run.engine.together import Take, take_in_turn
from distill_run.stages.assembly import Prepared
from distill_run.stages.budget import complete_training
from distill_run.stages.plans import Planner
from distill_run.stages.sharing import SharedTeachers
from distill_run.stages.student import guided
from distill_run.stages.together import train_all, usual_way
from distill_run.stages.trained import Measured, Origin, Trained
from distill_run.stages.wanted import Wanted
from distill_run.stages.workshop import Workshop

ROUNDS = 3


def main(arguments: Sequence[str]) -> None:
    """Time both and print the seconds of each, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=("usual", "in-turn", "stacked"), default="usual")
    parser.add_argument("--train-images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    usual = ["training.student.epochs=2", "training.student.batch_size=128", "device.precision=fp32", "repeats=1"]
    settings = compose_config(["dataset=cifar10", *usual, *options.overrides])
    training, _ = complete_training(settings.training, options.train_images)
    settings = replace(settings, training=training)
    console, seconds = Console(), []
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        workshop = noise_workshop(settings, Path(folder), stop, options.train_images)
        planner = Planner(settings, workshop.feed, workshop.builder)
        teacher = _untrained_teacher(planner, workshop)
        for _ in range(options.rounds + 1):  # the first fills the bank and warms up
            alone = _seconds_alone(_students(planner, teacher, workshop))
            seconds.append((alone, _seconds_together(_students(planner, teacher, workshop), options.way)))
    names, device = settings.names, workshop.device.settings
    one_by_one, together = (median(each) for each in zip(*seconds[1:], strict=True))
    console.note(f"{names.teacher} -> {names.student}, 12 students, {device.kind}, {device.precision}, {options.way}")
    console.note(f"one after the other {one_by_one:>8.2f} s")
    console.note(f"together            {together:>8.2f} s")
    console.note(f"ratio               {median(one / other for one, other in seconds[1:]):>8.2f}")


def _untrained_teacher(planner: Planner, workshop: Workshop) -> Trained:
    training = planner.teachers()[0]
    node = training.architecture.node
    network = workshop.assembler.make_network(training, node).eval()
    unmeasured = Measured(None, {}, torch.empty(0))
    return Trained("teacher", "untrained", node, network, "untrained", unmeasured, unmeasured, Origin.LOADED)


def _students(planner: Planner, teacher: Trained, workshop: Workshop) -> list[Wanted]:
    """The twelve students at their first step, each with what guides it."""
    training = planner.students()[0]
    assert training.mode is not None
    several = []
    for temperature, alpha in product(TEMPERATURES, ALPHAS):
        own = replace(training, mode={**training.mode, "temperature": temperature, "alpha": alpha})
        prepared = guided(Prepared(own, workshop.assembler.assemble(own)), teacher, workshop)
        several.append(Wanted(prepared, workshop, None, nullcontext, teacher))
    return several


def _seconds_alone(several: Sequence[Wanted]) -> float:
    begun = time.perf_counter()
    for wanted in several:
        wanted.workshop.train(wanted.prepared)
    return time.perf_counter() - begun


def _seconds_together(several: Sequence[Wanted], way: str) -> float:
    teachers = SharedTeachers()
    shared = [teachers.of(wanted) for wanted in several]
    ways: dict[str, Take] = {
        "usual": usual_way(several[0]), "in-turn": take_in_turn, "stacked": StackedTaker(lambda *_: True),
    }  # fmt: skip
    begun = time.perf_counter()
    for outcome in train_all(shared, ways[way]):
        if isinstance(outcome, BaseException):
            raise outcome
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(sys.argv[1:])
