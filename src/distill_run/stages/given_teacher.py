"""Teachers that come trained: from a file, or with the weights that a library publishes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config.schema import Settings
from distill_run.data.imagenet import imagenet_names
from distill_run.data.source import ImageFacts, ImageShape
from distill_run.errors import user_error
from distill_run.fingerprints import file_hash
from distill_run.models.class_outputs import ClassOutputs, Head
from distill_run.models.given_weights import take_weights
from distill_run.models.network import Network, build_network
from distill_run.models.pretrained import num_outputs
from distill_run.models.published import is_published, network_name, published_classes, weight_files
from distill_run.stages.teacher_classes import REMEDY, ChosenOutputs, outputs_for_classes
from distill_run.stages.teacher_normalisation import choose_normalisation
from distill_run.stages.training import Architecture
from distill_run.tensor_files import load, load_weights

IN_ORDER = "the file holds no class names: its outputs are taken in the order of the dataset's classes"
OWN_PROGRAM = "distill_run."  # targets that draw their weights at random, unless they have a key for others


@dataclass(frozen=True)
class GivenTeacher:
    """A teacher that is not trained here: its stage, its file if it has one, its network, the YAML and its name.

    `inputs` are all that its outputs depend on. `notes` say what was taken from the file, and what stands for what it
    does not hold; `warning` says it where its classes are not the dataset's in their order.
    """

    stage: str
    path: Path | None
    network: Network
    node: dict[str, Any]
    name: str
    inputs: dict[str, Any]
    notes: tuple[str, ...]
    warning: str | None = None


@dataclass(frozen=True)
class GivenTeachers:
    """Makes the teachers of a run that come trained, on the CPU."""

    settings: Settings
    images: ImageFacts
    builder: Builder

    def load(self, stage: str, path: Path) -> GivenTeacher:
        """The network in a file: of this program, which brings its architecture, or a state dict of `teacher=`.

        Raises UserError that names what does not fit: classes, image shape, tensors.
        """
        content, given = load(path), f"teacher_checkpoint={path}"
        if not checkpoint.is_network(content):
            architecture = Architecture("teacher", self.settings.names.teacher, self.settings.teacher)
            return self._from_state_dict(stage, path, architecture, content, given)
        if self.settings.teacher_normalisation is not None:
            raise user_error(
                f"teacher_normalisation={self.settings.teacher_normalisation}, but {path} holds a normalisation",
                "leave teacher_normalisation out",
            )
        _check_shape(content, path, self.images.shape)
        network, node = checkpoint.rebuild(content, self.builder), content["architecture"]
        head = Head(len(network.classes), tuple((name,) for name in network.classes))
        name = network_name(content["name"], node)
        teacher = GivenTeacher(stage, path, network, node, name, {"file": file_hash(path)}, ())
        return self._fitted(teacher, head, given, self._choose(head, given, REMEDY))

    def untrained(self, stage: str, architecture: Architecture) -> GivenTeacher:
        """An architecture with the weights that it brings, which nothing trains: teacher_trains=nothing."""
        size = self._num_outputs(architecture)
        head, given = self._published_head(architecture, size), f"teacher_trains=nothing, but {architecture.name}"
        chosen = self._choose(head, given, f"{REMEDY}; or write teacher_trains=head")
        network, files = self._build(architecture, size), weight_files(architecture.node)
        teacher = GivenTeacher(
            stage=stage,
            path=files[0] if files else None,
            network=network,
            node=architecture.node,
            name=architecture.name,
            inputs={"weights": _weights_hash(network)},
            notes=tuple(filter(None, [getattr(network.architecture, "weights_note", None)])),
        )
        return self._fitted(teacher, head, given, chosen)

    def _published_head(self, architecture: Architecture, size: int) -> Head:
        """The head of an architecture with published weights: for as many classes, those of ImageNet have their names.

        For fewer classes, the user says which outputs are theirs.
        """
        names, node = imagenet_names(), architecture.node
        is_named = is_published(node) and node["pretrained"] is True and size == len(names) == len(self.images.classes)
        return Head(size, names if is_named else None)

    def _num_outputs(self, architecture: Architecture) -> int:
        """How many outputs an architecture has with the weights that it brings."""
        node, size = architecture.node, self.images.shape.num_classes
        if is_published(node) and node["pretrained"] is True:
            size = published_classes(node)
            if size == 0:
                raise user_error(
                    f"teacher_trains=nothing, but the weights of {architecture.name} have no last layer",
                    "write teacher_trains=head, which trains one",
                )
        for path in weight_files(node):
            model = self._build(architecture, size).architecture
            weights, _ = take_weights(load(path), model, f"{architecture.key}.pretrained={path}")
            size = num_outputs(model, weights, size)
        return size

    def _from_state_dict(
        self, stage: str, path: Path, architecture: Architecture, content: object, given: str
    ) -> GivenTeacher:
        """The teacher with a state dict's weights: it says neither its classes nor its normalisation."""
        normalisation, said = choose_normalisation(self.settings, self.images.shape.in_channels)
        network = self._build(architecture, self.images.shape.num_classes, normalisation)
        weights, taken = take_weights(content, network.architecture, given)
        size = num_outputs(network.architecture, weights, self.images.shape.num_classes)
        head, remedy = Head(size, None), REMEDY
        if is_published(architecture.node):
            remedy += f"; or train it from these weights with a new last layer: teacher.pretrained={path}"
        chosen = self._choose(head, given, remedy)  # first: a file of other classes needs other words than a misfit
        if size != self.images.shape.num_classes:
            network = self._build(architecture, size, normalisation)
        load_weights(network.architecture, weights, f"teacher={architecture.option}")
        order = IN_ORDER if self.settings.teacher_classes is None else None
        notes = tuple(note for note in (taken, said, order) if note)
        inputs = {"file": file_hash(path)}
        teacher = GivenTeacher(stage, path, network, architecture.node, architecture.name, inputs, notes)
        return self._fitted(teacher, head, given, chosen)

    def _build(
        self, architecture: Architecture, num_classes: int, normalisation: tuple[list[float], list[float]] | None = None
    ) -> Network:
        dataset = self.settings.dataset
        assert dataset.mean is not None
        assert dataset.std is not None
        shape = replace(self.images.shape, num_classes=num_classes)
        mean, std = normalisation or (dataset.mean, dataset.std)
        return build_network(architecture.node, architecture.key, shape, mean, std, 0, self.builder)

    def _choose(self, head: Head, given: str, remedy: str) -> ChosenOutputs:
        return outputs_for_classes(self.settings.teacher_classes, head, self.images.classes, given, remedy)

    def _fitted(self, teacher: GivenTeacher, head: Head, given: str, chosen: ChosenOutputs) -> GivenTeacher:
        """The teacher with logits for the dataset's classes."""
        network = teacher.network.eval()
        if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
            raise user_error(f"{given} has weights that are not finite", "train that teacher again")
        if chosen.outputs is not None:
            network.class_outputs = ClassOutputs(chosen.outputs)
        network.classes = self.images.classes
        network.crop_ratio = self.images.crop_ratio
        inputs = {
            **teacher.inputs,
            "architecture": teacher.node,
            # A plain state dict takes these from the configuration.
            "mean": network.mean.flatten().tolist(),
            "std": network.std.flatten().tolist(),
            "code": self.builder.code_hash(teacher.node),
            "outputs": chosen.outputs,
        }
        return replace(
            teacher,
            inputs=inputs,
            notes=(*teacher.notes, *chosen.lines),
            warning=self._warning(head, chosen),
        )

    def _warning(self, head: Head, chosen: ChosenOutputs) -> str | None:
        """A word on as many classes of other names or in another order, where the user has not chosen outputs."""
        classes = self.images.classes
        if self.settings.teacher_classes is not None or head.names is None or head.size != len(classes):
            return None
        if chosen.outputs is not None:
            return "the teacher has the dataset's classes in another order: its outputs are put in order by their names"
        if all(place in head.places(name) for place, name in enumerate(classes)):
            return None
        return "the teacher's classes are named differently from the dataset's; is their order the same?"


def check_untrained(settings: Settings, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError where teacher_trains leaves weights as they are that were drawn at random, or trains nobody.

    `networks` are the YAML of the teachers that are not given as files, by their keys.
    """
    trains = settings.teacher_trains
    if trains == "all":
        return
    if not networks and trains == "head":
        raise user_error(
            "teacher_trains=head, but a teacher_checkpoint is not trained",
            "write teacher.pretrained=FILE instead of teacher_checkpoint=FILE",
        )
    for key, node in networks.items():
        if node["_target_"].startswith(OWN_PROGRAM) and not node.get("pretrained"):
            raise user_error(
                f"teacher_trains={trains}, but {key} has weights that were drawn at random",
                f"write {key}.pretrained=true, or FILE, for a network of torchvision or timm; or teacher_trains=all",
            )
    if trains == "nothing" and isinstance(settings.teacher_seed, list):
        raise user_error("teacher_trains=nothing has no use for several seeds", "write one teacher_seed")


def _check_shape(content: dict[str, Any], path: Path, shape: ImageShape) -> None:
    pairs = {
        "channels": (content["in_channels"], shape.in_channels),
        "image size": (tuple(content["image_size"]), shape.image_size),
    }
    for what, (teachers, datasets) in pairs.items():
        if teachers != datasets:
            raise user_error(
                f"teacher_checkpoint={path} was made for {what} {teachers}, the dataset has {datasets}",
                "give a teacher of this dataset, or the teacher's dataset",
            )


def _weights_hash(network: Network) -> str:
    """The sha256 of the names and values of all tensors."""
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tuple(tensor.shape)}".encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
