"""The teacher: from the store, from a checkpoint made elsewhere, or trained now."""

import copy
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor, no_grad

from distill_run import checkpoint
from distill_run.config.schema import Settings
from distill_run.data.batches import Batch
from distill_run.engine.device import Device
from distill_run.engine.evaluate import measure, predict
from distill_run.errors import user_error
from distill_run.losses.logits import averaged_logits
from distill_run.models.ensemble import Ensemble
from distill_run.models.features import FeatureReader
from distill_run.models.folding import fold_batch_norm
from distill_run.models.network import Network
from distill_run.models.outputs import Outputs
from distill_run.stages.entry import obtain
from distill_run.stages.lr_search import find_learning_rate
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.training import Architecture, Bench, Plan, make_network, plan_alone
from distill_run.store import file_hash, fingerprint


class LiveTeacher:
    """The frozen teacher, asked for each batch.

    Frozen: its parameters take no gradient and batch norm uses its running statistics, so that what it says of
    an image depends on that image alone. It is a copy, with the batch norm folded into the convolutions, unless
    features at `points` are read, which folding could change.
    """

    def __init__(self, network: Network, device: Device, points: Mapping[str, str] | None = None) -> None:
        plain = copy.deepcopy(network.eval()) if points else fold_batch_norm(network.eval())
        self.network = device.place(plain).requires_grad_(False)
        self.read = FeatureReader(self.network, points or {})
        self.device = device

    @no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's outputs for the same view that the student sees."""
        assert not self.network.training
        with self.device.autocast():
            return self.read(batch.images)


def teacher_plans(bench: Bench) -> list[Plan]:
    """The trainings of the teachers that are not given as checkpoints: each architecture with each of the seeds."""
    settings = bench.settings
    architectures = [Architecture(f"more_teachers.{name}", name, node) for name, node in settings.more_teachers.items()]
    if settings.teacher_checkpoint is None:
        architectures.insert(0, Architecture("teacher", settings.names.teacher, settings.teacher))
    first = len(checkpoint_paths(settings)) + 1
    return [
        plan_alone(_stage(number), architecture, "teacher", seed, seed, bench)
        for number, (architecture, seed) in enumerate(product(architectures, teacher_seeds(settings)), start=first)
    ]


def checkpoint_paths(settings: Settings) -> list[Path]:
    """The files of the teachers that are trained already."""
    given = settings.teacher_checkpoint
    return [Path(path) for path in ([given] if isinstance(given, str) else given or [])]


def teacher_seeds(settings: Settings) -> list[int]:
    """One seed, or one for each of several teachers of an architecture."""
    return settings.teacher_seed if isinstance(settings.teacher_seed, list) else [settings.teacher_seed]


def teacher_weights(settings: Settings, num_teachers: int) -> list[float]:
    """The weights of the teachers, whose sum is 1; raises UserError where there are not as many as teachers."""
    weights = settings.teacher_weights or [1.0] * num_teachers
    if len(weights) != num_teachers:
        raise user_error(
            f"teacher_weights has {len(weights)} numbers, the number of teachers is {num_teachers}",
            "write one for each: checkpoints first, then teacher=, then more_teachers=, each with all of its seeds",
        )
    return [weight / sum(weights) for weight in weights]


def obtain_teacher(bench: Bench) -> Trained:
    """The trained teacher, or several as one; says where each comes from and how good it is on validation."""
    paths = checkpoint_paths(bench.settings)
    members = [_from_checkpoint(path, _stage(number), bench) for number, path in enumerate(paths, start=1)]
    members += [obtain("teacher", *find_learning_rate(plan, bench), bench) for plan in teacher_plans(bench)]
    for member in members:
        _introduce(member, bench)
    return members[0] if len(members) == 1 else _together(members, bench)


def _stage(number: int) -> str:
    return "teacher" if number == 1 else f"teacher {number}"


def _introduce(teacher: Trained, bench: Bench) -> None:
    assert isinstance(teacher.network, Network)
    mean, std = (values.flatten().tolist() for values in (teacher.network.mean, teacher.network.std))
    bench.console.note(
        f"{teacher.stage}: {teacher.name} {teacher.fingerprint[:12]} {teacher.origin_text}, "
        f"validation accuracy {teacher.selected.val['accuracy']:.2%}, "
        f"normalised with mean {_rounded(mean)} std {_rounded(std)}"
    )
    dataset = bench.settings.dataset
    if (_rounded(mean), _rounded(std)) != (_rounded(dataset.mean or []), _rounded(dataset.std or [])):
        bench.console.warn(f"the {teacher.stage} keeps its own normalisation, which differs from the dataset's")


def _together(members: list[Trained], bench: Bench) -> Trained:
    """Several teachers as one, which gives the weighted mean of their probabilities."""
    weights = teacher_weights(bench.settings, len(members))
    network = Ensemble([member.network for member in members if isinstance(member.network, Network)], weights)
    val = measure(predict(network, bench.dataset.val), bench.dataset.val.targets.cpu())
    logits = averaged_logits(
        [(weight, member.selected.test_logits) for weight, member in zip(weights, members, strict=True)], 1.0
    )
    bench.console.note(
        f"{len(members)} teachers: weights {_rounded(weights)}, validation accuracy of their mean {val['accuracy']:.2%}"
    )
    measured = Measured(None, val, logits)
    return Trained(
        stage="teacher",
        name=" + ".join(member.name for member in members),
        node={},
        network=network,
        fingerprint=fingerprint({"members": [member.fingerprint for member in members], "weights": weights}),
        selected=measured,
        last=measured,
        origin=Origin.AVERAGED,
        cost=Cost(train_seconds=sum(member.cost.train_seconds for member in members)),
        members=tuple(zip(weights, members, strict=True)),
    )


def _from_checkpoint(path: Path, stage: str, bench: Bench) -> Trained:
    network, node, name, classes = load_teacher(path, bench)
    if classes not in (None, bench.dataset.classes):
        bench.console.warn("the teacher's classes are named differently from the dataset's; is their order the same?")
    logits = predict(network, bench.dataset.test)
    val_logits = predict(network, bench.dataset.val)
    inputs = {
        "file": file_hash(path),
        # A plain state dict takes these from the configuration.
        "architecture": node,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "code": bench.builder.code_hash(node),
    }
    measured = Measured(None, measure(val_logits, bench.dataset.val.targets.cpu()), logits)
    return Trained(
        stage=stage,
        name=name,
        node=node,
        network=network,
        fingerprint=fingerprint(inputs),
        selected=measured,
        last=measured,
        origin=Origin.LOADED,
        path=path,
    )


def load_teacher(path: Path, bench: Bench) -> tuple[Network, dict[str, Any], str, tuple[str, ...] | None]:
    """The network in `path`, on the bench's device, its node of YAML, its name, and its classes where they are known.

    A file of this program's brings its architecture; anything else must be a state dict of `teacher=`. Raises
    UserError that names what does not fit: classes, image shape, tensors.
    """
    content = checkpoint.load(path)
    if checkpoint.is_network(content):
        _check_shape(content, path, bench)
        network, node, name = checkpoint.rebuild(content, bench.builder), content["architecture"], content["name"]
        classes = tuple(content["classes"])
    else:
        node, name, classes = bench.settings.teacher, bench.settings.names.teacher, None
        network = make_network(node, "teacher", 0, bench)
        checkpoint.load_weights(network, _plain_state_dict(content, path), f"teacher={name}")
    tensors = network.state_dict().values()
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise user_error(f"teacher_checkpoint={path} has weights that are not finite", "train that teacher again")
    return bench.device.place(network).eval(), node, name, classes


def _check_shape(content: dict[str, Any], path: Path, bench: Bench) -> None:
    shape = bench.shape
    pairs = {
        "classes": (len(content["classes"]), shape.num_classes),
        "channels": (content["in_channels"], shape.in_channels),
        "image size": (tuple(content["image_size"]), shape.image_size),
    }
    for what, (teachers, datasets) in pairs.items():
        if teachers != datasets:
            raise user_error(
                f"teacher_checkpoint={path} was made for {what} {teachers}, the dataset has {datasets}",
                "give a teacher of this dataset, or the teacher's dataset",
            )


def _plain_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, also where others wrapped it; raises UserError for anything else."""
    if isinstance(content, dict):
        for wrapper in ("state_dict", "model"):
            content = content.get(wrapper, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise user_error(
            f"teacher_checkpoint={path} is neither a network of distill-run nor a state dict",
            "save one with torch.save(network.state_dict(), path)",
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]
