"""Works out the figures of a run beyond its accuracies: agreement by the teacher, calibration, robustness."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from distill_run.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from distill_run.data.feed import Feed
from distill_run.data.source import ImageSet, Split
from distill_run.engine.calibration import fit_temperature
from distill_run.engine.evaluate import measure, predict
from distill_run.report.figures import Agreement, AgreementByTeacher, Calibration, Confidence, Robustness
from distill_run.stages.trained import Trained


def agreement_by_teacher(networks: Mapping[str, Trained], targets: Tensor) -> AgreementByTeacher:
    """How often the other networks decide as the teacher does where it is right on test, and where it is wrong."""
    decisions = {stage: trained.selected.test_logits.argmax(1) for stage, trained in networks.items()}
    teacher = decisions.pop("teacher")
    agreed = {stage: each == teacher for stage, each in decisions.items()}
    is_right = teacher == targets
    return AgreementByTeacher(_agreement(agreed, is_right), _agreement(agreed, ~is_right))


def _agreement(agreed: Mapping[str, Tensor], where: Tensor) -> Agreement:
    if not where.any():
        return Agreement(0, {})
    return Agreement(int(where.sum()), {stage: _share(each[where]) for stage, each in agreed.items()})


def calibrations(networks: Mapping[str, Trained], feed: Feed) -> dict[str, Calibration]:
    """Each network's temperature, fitted to its validation logits, and what it changes on test."""
    found = {}
    for stage, trained in networks.items():
        found[stage] = feed.kept.get(("calibration", trained.fingerprint), partial(_calibration, trained, feed))
    return found


def _calibration(trained: Trained, feed: Feed) -> Calibration:
    value, at_bound = fit_temperature(predict(trained.network, feed.val), feed.val.targets.cpu())
    logits, targets = trained.selected.test_logits.double(), feed.test.targets.cpu()
    return Calibration(value, at_bound, _confidence(logits, targets), _confidence(logits / value, targets))


def _confidence(logits: Tensor, targets: Tensor) -> Confidence:
    figures = measure(logits, targets)
    mean = logits.softmax(1).amax(1).mean().item()
    return Confidence(mean, figures["ece"], figures["nll"], figures["brier"])


def robustness(networks: Mapping[str, Trained], test: ImageSet, num_images: int) -> Robustness | None:
    """The accuracies on `num_images` test images, evenly spread, when they are corrupted; None where it is 0."""
    num_images = min(num_images, len(test))
    if num_images == 0:
        return None
    indices = torch.arange(num_images) * len(test) // num_images
    device, targets = test.targets.device, test.targets.cpu()[indices]
    images = torch.stack([test.image(index) for index in indices.tolist()])
    corrupted: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in CORRUPTIONS:
        accuracies: dict[str, list[float]] = {stage: [] for stage in networks}
        for severity in SEVERITIES:
            split = Split(corrupt(images, name, severity, indices), targets).to(device)
            for stage, trained in networks.items():
                accuracies[stage].append(_accuracy(predict(trained.network, split), targets))
        corrupted[name] = {stage: tuple(each) for stage, each in accuracies.items()}
    clean = {stage: _accuracy(each.selected.test_logits[indices], targets) for stage, each in networks.items()}
    return Robustness(num_images, clean, corrupted)


def _accuracy(logits: Tensor, targets: Tensor) -> float:
    return _share(logits.argmax(1) == targets)


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
