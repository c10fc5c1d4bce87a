"""A student beside its teacher: the same images, the same classes in the same order."""

from dataclasses import dataclass
from pathlib import Path

import torch

from distill_run.config.schema import DeviceSettings
from distill_run.deploy.shipped import Shipped, open_shipped
from distill_run.engine.device import choose_device
from distill_run.errors import UserError, user_error
from distill_run.models.class_outputs import ClassOutputs, Head, choose_outputs
from distill_run.models.network import Network

NAME_IT = "name it, as in --teacher outputs/store/teacher/FINGERPRINT/weights.pt"
PRECISE = DeviceSettings(  # as tests are measured
    kind="auto",
    precision="fp32",
    channels_last=True,
    compile="off",
    deterministic=True,
    num_processes=1,
    sync_batch_norm=True,
)


@dataclass(frozen=True)
class Comparison:
    """A student with its file and its run, and the networks to compare by their stages, all on one device."""

    student: Shipped
    networks: dict[str, Network]
    device: torch.device


def compare(student: Shipped, teacher: Network | None) -> Comparison:
    """The student and its teacher, if there is one, on the best device that there is."""
    device = choose_device(PRECISE)
    networks = {"student": student.network} | ({"teacher": teacher} if teacher else {})
    placed = {stage: device.place(network) for stage, network in networks.items()}
    return Comparison(student, placed, device.torch_device)


def open_teacher(student: Shipped, file: Path | None, code_dir: Path | None, *, trusts: bool = False) -> Network:
    """The teacher in `file`, or else that of the student's run, in eval mode on the CPU, with the student's classes.

    `code_dir` and `trusts` are those of `open_shipped`. Raises UserError where there is no
    teacher, or where its images or its classes are not the student's.
    """
    if file is not None:
        own = student.run and student.run.settings.code_dir
        network = open_shipped(file, Path(own) if own else code_dir, trusts=trusts).network
        return _fitted(network, student.network, f"--teacher {file}")
    if student.run is None:
        raise user_error(f"{student.path} belongs to no run that names a teacher", NAME_IT)
    try:
        return student.run.teacher(student.network)
    except UserError as error:
        raise user_error(error.mistakes[0].what, NAME_IT) from error


def _fitted(teacher: Network, student: Network, given: str) -> Network:
    """The teacher, whose outputs are brought into the order of the student's classes."""
    theirs, ours = teacher.shape, student.shape
    for what, teachers, students in (
        ("channels", theirs.in_channels, ours.in_channels),
        ("image size", theirs.image_size, ours.image_size),
    ):
        if teachers != students:
            raise user_error(
                f"{given} was made for {what} {teachers}, the student for {students}",
                "give a teacher of the student's images",
            )
    head = Head(theirs.num_classes, tuple((name,) for name in teacher.classes))
    try:
        outputs = choose_outputs(given, [[name] for name in student.classes], head)
    except UserError as error:
        raise user_error(error.mistakes[0].what, "give a teacher of the student's classes") from error
    if outputs != [[place] for place in range(head.size)]:
        teacher.class_outputs = ClassOutputs(outputs)
        teacher.classes = student.classes
    return teacher
