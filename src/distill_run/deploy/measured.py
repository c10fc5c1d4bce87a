"""Networks that are measured side by side, in whatever file they are: a run's, PyTorch's or an exported one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distill_run.deploy.exported_subjects import OnnxSubject, read_exported
from distill_run.deploy.shipped import Shipped, open_shipped
from distill_run.engine.speed import Subject, TorchSubject, measure_speeds
from distill_run.engine.timing import Inference
from distill_run.errors import user_error
from distill_run.files import size_on_disk
from distill_run.models.network import Network, count_bytes, count_macs, count_params, macs_of


@dataclass(frozen=True)
class Candidate:
    """A network to be measured, and what can be told of it without a clock.

    `stage` is what it was in its run, where `place` names several networks; otherwise empty. `num_bytes` is the size of
    its file. `macs` is None where it is not known.
    """

    place: Path
    stage: str
    form: str
    parameters: int
    macs: int | None
    num_bytes: int
    subject: Subject


@dataclass(frozen=True)
class Measured:
    """What is known of a network: see Candidate."""

    file: str
    stage: str
    form: str
    parameters: int
    macs: int | None
    bytes: int
    speed: tuple[Inference, ...]


def open_candidates(place: Path, all_stages: bool, code_dir: Path | None, *, trusts: bool) -> list[Candidate]:
    """The networks that `place` names: of a run its student and, with `all_stages`, its teacher and its baseline.

    `code_dir` and `trusts` are those of `open_shipped`. Raises UserError where there is no such network, and for a file
    of torch.export that is not trusted.
    """
    if place.suffix == ".onnx":
        onnx = OnnxSubject.read(place)
        return [Candidate(place, "", "onnx", onnx.num_parameters, None, _size_on_disk(place), onnx)]
    if place.suffix == ".pt2" and not trusts:
        raise user_error(
            f"{place} is a file of torch.export, which can run code when it is opened",
            "if it comes from you or from someone you trust, add --trust",
        )
    if place.suffix == ".pt2":
        exported = read_exported(place)
        network, macs = exported.network, macs_of(exported.network, exported.images(1))
        return [Candidate(place, "", "torch export", count_params(network), macs, _size_on_disk(place), exported)]
    shipped = open_shipped(place, code_dir, trusts=trusts)
    num_bytes = _size_on_disk(shipped.path)
    if all_stages and shipped.run is not None:
        return [*_others(place, shipped), _candidate(place, "student", shipped.network, num_bytes)]
    return [_candidate(place, "", shipped.network, num_bytes)]


def _others(place: Path, shipped: Shipped) -> list[Candidate]:
    """The teacher and the baseline of a run; their bytes are those of their weights."""
    assert shipped.run is not None
    networks = {"teacher": shipped.run.teacher(shipped.network), "baseline": shipped.run.baseline()}
    return [_candidate(place, stage, each, count_bytes(each)) for stage, each in networks.items() if each is not None]


def _candidate(place: Path, stage: str, network: Network, num_bytes: int) -> Candidate:
    subject, macs = TorchSubject.of(network, network.shape), count_macs(network, network.shape)
    return Candidate(place, stage, "torch", count_params(network), macs, num_bytes, subject)


def _size_on_disk(path: Path) -> int:
    """The bytes of a file, and of the weights beside it, where an exporter put them into a file of their own."""
    beside = path.with_name(f"{path.name}.data")
    return size_on_disk(path) + (beside.stat().st_size if beside.is_file() else 0)


def measure_candidates(candidates: Sequence[Candidate], device: torch.device) -> list[Measured]:
    """Measure all of them in turn: on the device, where their form can be run there, and on the CPU."""
    speeds = measure_speeds([candidate.subject for candidate in candidates], device)
    return [
        Measured(str(each.place), each.stage, each.form, each.parameters, each.macs, each.num_bytes, speed)
        for each, speed in zip(candidates, speeds, strict=True)
    ]
