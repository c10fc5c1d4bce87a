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
from distill_run.models.given_weights import take_weights
from distill_run.models.network import Network, build_network
from distill_run.models.pretrained import head_of_others, is_published, network_name, published_normalisation
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.workshop import Workshop
from distill_run.store import file_hash, fingerprint_of
from distill_run.tensor_files import load, load_weights
from distill_run.units import rounded


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that was trained elsewhere: its stage, its file, its network, the YAML and the name of that.

    `classes` are the names of its classes, None where the file does not say them. `notes` say what was taken from the
    file, and where the normalisation is from, if the file does not hold it.
    """

    stage: str
    path: Path
    network: Network
    node: dict[str, Any]
    name: str
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def load_teacher(stage: str, path: Path, settings: Settings, feed: Feed, builder: Builder) -> LoadedTeacher:
    """The network in `path`, on the CPU.

    A file of this program brings its architecture; anything else must be a state dict of `teacher=`. Raises UserError
    that names what does not fit: classes, image shape, tensors.
    """
    content, notes = load(path), []
    if checkpoint.is_network(content):
        if settings.teacher_normalisation is not None:
            raise user_error(
                f"teacher_normalisation={settings.teacher_normalisation}, but {path} holds a normalisation",
                "leave teacher_normalisation out",
            )
        _check_shape(content, path, feed)
        network, node, option = checkpoint.rebuild(content, builder), content["architecture"], content["name"]
        classes = tuple(content["classes"])
    else:
        node, option, classes = settings.teacher, settings.names.teacher, None
        (mean, std), chosen = _choose_normalisation(settings, feed.shape.in_channels)
        network = build_network(node, "teacher", feed.shape, mean, std, 0, builder)
        network.classes = feed.classes
        weights, taken = take_weights(content, network.architecture, f"teacher_checkpoint={path}")
        notes += [note for note in (taken, chosen) if note]
        _check_head(network, node, weights, path)
        load_weights(network.architecture, weights, f"teacher={option}")
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise user_error(f"teacher_checkpoint={path} has weights that are not finite", "train that teacher again")
    return LoadedTeacher(stage, path, network.eval(), node, network_name(option, node), classes, tuple(notes))


def check_normalisation(settings: Settings) -> None:
    """Raise UserError where the settings choose a teacher's normalisation, and no teacher is given as a file."""
    if settings.teacher_normalisation is not None and settings.teacher_checkpoint is None:
        raise user_error(
            "teacher_normalisation is for a teacher_checkpoint, and there is none",
            "leave it out, or give a state dict, as in teacher_checkpoint=my_weights.pt",
        )


def measure_teacher(teacher: LoadedTeacher, workshop: Workshop) -> Trained:
    """A loaded teacher with its figures."""
    feed, network = workshop.feed, teacher.network
    device = workshop.device_for(network)
    for note in (*teacher.notes, *device.notes):
        workshop.watcher.noted(f"{teacher.stage}: {note}")
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
        precision=device.settings.precision,
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


def _choose_normalisation(settings: Settings, in_channels: int) -> tuple[tuple[list[float], list[float]], str | None]:
    """Mean and std for a state dict, which does not hold them, and a note on them if nobody has chosen them."""
    chosen, name = settings.teacher_normalisation, settings.names.teacher
    if isinstance(chosen, list):
        mean, std = chosen
        if len(mean) != in_channels:
            raise user_error(
                f"teacher_normalisation has {len(mean)} means, the images have {in_channels} channels",
                "write a mean and a standard deviation for each channel",
            )
        return (mean, std), None
    published = None if chosen == "dataset" else published_normalisation(settings.teacher, in_channels)
    if published is not None:
        note = f"the file holds no normalisation, that of {name}'s published weights is taken"
        return published, None if chosen else f"{note}; teacher_normalisation=dataset takes the dataset's"
    if chosen == "published":
        raise user_error(
            f"teacher_normalisation=published, but no weights are published for teacher={name}",
            "write teacher_normalisation=dataset, or the values, as in [[0.5,0.5,0.5],[0.25,0.25,0.25]]",
        )
    mean, std = settings.dataset.mean, settings.dataset.std  # type: ignore[assignment]
    note = "the file holds no normalisation, the dataset's is taken"
    return (mean, std), None if chosen else f"{note}; teacher_normalisation=[[mean,...],[std,...]] takes another"


def _check_head(network: Network, node: dict[str, Any], weights: dict[str, Tensor], path: Path) -> None:
    """Raise UserError where all but the last layer could be taken from a network of torchvision or timm."""
    if is_published(node) and (other := head_of_others(network.architecture, weights)):
        key = other[0]
        raise user_error(
            f"{key} has the shape {tuple(weights[key].shape)} in teacher_checkpoint={path}, "
            f"{tuple(network.architecture.state_dict()[key].shape)} for the dataset's classes",
            f"to train the teacher from these weights with a new last layer, write teacher.pretrained={path} instead",
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
