"""Teachers that were trained elsewhere, and several teachers as one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config.schema import Settings
from distill_run.data.feed import Feed
from distill_run.engine.evaluate import measure, predict
from distill_run.errors import user_error
from distill_run.losses.logits import averaged_logits
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network, build_network
from distill_run.models.pretrained import network_name
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.workshop import Workshop
from distill_run.store import file_hash, fingerprint_of
from distill_run.units import rounded


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that was trained elsewhere: its stage, its file, its network, the YAML and the name of that.

    `classes` are the names of its classes, None where the file does not say them.
    """

    stage: str
    path: Path
    network: Network
    node: dict[str, Any]
    name: str
    classes: tuple[str, ...] | None


def load_teacher(stage: str, path: Path, settings: Settings, feed: Feed, builder: Builder) -> LoadedTeacher:
    """The network in `path`, on the CPU.

    A file of this program brings its architecture; anything else must be a state dict of `teacher=`. Raises UserError
    that names what does not fit: classes, image shape, tensors.
    """
    content = checkpoint.load(path)
    if checkpoint.is_network(content):
        _check_shape(content, path, feed)
        network, node, option = checkpoint.rebuild(content, builder), content["architecture"], content["name"]
        classes = tuple(content["classes"])
    else:
        node, option, classes = settings.teacher, settings.names.teacher, None
        mean, std = settings.dataset.mean, settings.dataset.std
        assert mean is not None
        assert std is not None
        network = build_network(node, "teacher", feed.shape, mean, std, 0, builder)
        network.classes = feed.classes
        checkpoint.load_weights(network, _plain_state_dict(content, path), f"teacher={option}")
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise user_error(f"teacher_checkpoint={path} has weights that are not finite", "train that teacher again")
    return LoadedTeacher(stage, path, network.eval(), node, network_name(option, node), classes)


def measure_teacher(teacher: LoadedTeacher, workshop: Workshop) -> Trained:
    """A loaded teacher with its figures."""
    feed, network = workshop.feed, teacher.network
    if teacher.classes not in (None, feed.classes):
        workshop.watcher.warned(
            "the teacher's classes are named differently from the dataset's; is their order the same?"
        )
    val = measure(predict(network, feed.val), feed.val.targets.cpu())
    measured = Measured(None, val, predict(network, feed.test))
    inputs = {
        "file": file_hash(teacher.path),
        # A plain state dict takes these from the configuration.
        "architecture": teacher.node,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "code": workshop.builder.code_hash(teacher.node),
    }
    trained = Trained(
        stage=teacher.stage,
        name=teacher.name,
        node=teacher.node,
        network=network,
        fingerprint=fingerprint_of(inputs),
        selected=measured,
        last=measured,
        origin=Origin.LOADED,
        path=teacher.path,
    )
    workshop.watcher.stage_ended(trained)
    return trained


def together(members: list[Trained], weights: list[float], workshop: Workshop) -> Trained:
    """Several teachers as one, which gives the weighted mean of their probabilities."""
    feed = workshop.feed
    network = Ensemble([member.own_network for member in members], weights)
    val = measure(predict(network, feed.val), feed.val.targets.cpu())
    test_logits = [(weight, member.selected.test_logits) for weight, member in zip(weights, members, strict=True)]
    measured = Measured(None, val, averaged_logits(test_logits, 1.0))
    workshop.watcher.noted(
        f"{len(members)} teachers: weights {rounded(weights)}, validation accuracy of their mean {val['accuracy']:.2%}"
    )
    return Trained(
        stage="teacher",
        name=" + ".join(member.name for member in members),
        node={},
        network=network,
        fingerprint=fingerprint_of({"members": [member.fingerprint for member in members], "weights": weights}),
        selected=measured,
        last=measured,
        origin=Origin.AVERAGED,
        cost=Cost(train_seconds=sum(member.cost.train_seconds for member in members)),
        members=tuple(zip(weights, members, strict=True)),
    )


def _check_shape(content: dict[str, Any], path: Path, feed: Feed) -> None:
    shape = feed.shape
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
