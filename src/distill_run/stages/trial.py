"""One step on two images before anything is trained: a mistake in a loss does not wait for the teacher's training."""

import copy

import torch

from distill_run.data.feed import Feed
from distill_run.engine.device import Device
from distill_run.engine.finite import first_not_finite
from distill_run.engine.protocols import Guide
from distill_run.errors import first_line, user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.features import FeatureReader
from distill_run.own_code import WHOLE
from distill_run.stages.assembly import Assembly, Prepared, TeacherShape, check_logits
from distill_run.stages.guides import SeveralTeachers
from distill_run.stages.live_teacher import LiveTeacher
from distill_run.stages.training import Training


def try_step(prepared: Prepared, teacher: TeacherShape | None, feed: Feed) -> None:
    """Compute the loss of two training images and its gradients, with copies of network and loss: nothing changes.

    Raises UserError for a loss of own code that is no scalar, or that has no gradients.
    """
    training, device = prepared.training, Device(prepared.training.device, ())
    network, loss = copy.deepcopy(prepared.assembly.network).train(), copy.deepcopy(prepared.assembly.loss).train()
    batch = next(iter(feed.batches(training.views, 2, training.seed).epoch(1)))
    with torch.random.fork_rng(devices=[]):
        with device.autocast():
            outputs = FeatureReader(network, prepared.assembly.student_points)(batch.images)
        check_logits(outputs.logits, 2, feed.shape.num_classes, training.architecture.key)
        if faulty := first_not_finite(batch.images, network, outputs, None, {}):
            raise user_error(f"the {training.stage}, for two training images: {faulty[0]} are not finite", faulty[1])
        guide = None if loss.needs == "nothing" else _guide(prepared.assembly, teacher, device)
        total, parts = loss.losses(batch, outputs, guide(batch) if guide else None)
        for name, part in parts.items():
            if part.ndim != 0:
                raise user_error(
                    f"{_mode(training)}: {name} has the shape {tuple(part.shape)} for two images",
                    "let `distillation` return a scalar, as .mean() does",
                )
        try:
            total.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:  # raised by autograd, out of sight of the code that is to blame
            if training.code is None and training.mode_code is None:
                raise
            raise user_error(
                f"{_mode(training)}: the loss has no gradients: {first_line(error)}",
                f"compute it with torch from the student's outputs; {WHOLE}",
            ) from error


def _guide(assembly: Assembly, teacher: TeacherShape | None, device: Device) -> Guide:
    assert teacher is not None
    if isinstance(network := teacher.network, Ensemble):
        members = [LiveTeacher(member, device) for member in network.networks]
        return SeveralTeachers(list(zip(network.weights, members, strict=True)))
    return LiveTeacher(network, device, assembly.teacher_points)


def _mode(training: Training) -> str:
    return f"{training.stage}, mode={training.mode_name}"
