"""What inference costs the networks of a run."""

import dataclasses
import logging

import torch

from distill_run.data.source import ImageShape
from distill_run.engine.speed import TorchSubject, measure_speeds
from distill_run.errors import first_line
from distill_run.stages.trained import Outcome, Repeat, Trained
from distill_run.stages.watcher import Watcher

log = logging.getLogger(__name__)


def with_speeds(outcome: Outcome, shape: ImageShape, device: torch.device, watcher: Watcher) -> Outcome:
    """The outcome with the measured speed of the networks that a report shows side by side.

    The students and baselines of other seeds have the same architecture as those that are shown. What cannot be
    measured, as where memory does not suffice, is a warning: the run is trained, and gets its report.
    """
    shown = [*outcome.networks.values(), *outcome.assistants]
    try:
        speeds = measure_speeds([TorchSubject.of(each.network, shape) for each in shown], device, watcher)
    except Exception as error:
        log.info("the measurement failed", exc_info=True)
        watcher.warned(f"the speed of inference is not measured: {first_line(error)}")
        return outcome
    measured = {id(each): dataclasses.replace(each, speed=speed) for each, speed in zip(shown, speeds, strict=True)}

    def of(trained: Trained) -> Trained:
        return measured.get(id(trained), trained)

    repeats = [
        Repeat(seed, None if baseline is None else of(baseline), of(student))
        for seed, baseline, student in outcome.repeats
    ]
    return Outcome(of(outcome.teacher), [of(assistant) for assistant in outcome.assistants], repeats)
