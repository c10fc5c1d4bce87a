"""What a training works on, built once and tried before anything is trained: the network, the loss, the features."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill_run.build import Builder
from distill_run.checkpoint import load_given
from distill_run.data.feed import Feed
from distill_run.engine.device import Device
from distill_run.engine.protocols import Guide
from distill_run.errors import UserError, first_line, user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.network import Network, build_network
from distill_run.objectives.assemble import build_objectives
from distill_run.objectives.base import ReplacesStudent
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.total import TotalLoss
from distill_run.out_of_memory import is_out_of_memory
from distill_run.own_code import place_in
from distill_run.stages.pairing import Points, naming_the_option, pair_up, single
from distill_run.stages.probe import check_head
from distill_run.stages.trained import Curve, Measured, Origin, Trained
from distill_run.stages.training import Training


@dataclass(frozen=True)
class TeacherShape:
    """A teacher as far as a student must know it before it is trained: a network of its shape, and its YAML."""

    network: Network | Ensemble
    node: dict[str, Any]


@dataclass(frozen=True)
class Assembly:
    """A network with fresh weights on its device, its loss, and the places of the features that the loss reads.

    `node` is the YAML of the architecture that learns: the training's own, unless the mode replaces it.
    """

    network: Network
    node: dict[str, Any]
    loss: TotalLoss
    student_points: Points
    teacher_points: Points

    def take_from(self, teacher: Network | Ensemble) -> None:
        """Load the weights that the student takes from the trained teacher, where the mode says so.

        Raises UserError that names a tensor that the student does not have, or has in another shape.
        """
        for term in self.loss.terms.values():
            if isinstance(term, ReplacesStudent):
                load_given(self.network, term.given_weights(single(teacher).architecture))


@dataclass(frozen=True)
class Prepared:
    """A training with what it works on, what guides it, and the search that found its learning rate.

    `guided_by` names the guide: "logit bank", "live teacher" or "nothing"; None where there is no teacher.
    `notes` say what `auto` became for the network.
    """

    training: Training
    assembly: Assembly
    guide: Guide | None = None
    guided_by: str | None = None
    curve: Curve = ()
    notes: tuple[str, ...] = ()

    def at_rate(self, found: Training, curve: Curve) -> "Prepared":
        """The same by the recipe of the training that a search has `found`, with the curve of that search."""
        return replace(self, training=replace(self.training, recipe=found.recipe), curve=curve)

    def outcome(self, selected: Measured, last: Measured, origin: Origin, **facts: Any) -> Trained:
        """What came of the training, whose network has the selected weights; `facts` are further fields of Trained."""
        training = self.training
        return Trained(
            stage=training.stage,
            name=training.architecture.name,
            node=self.assembly.node,
            network=self.assembly.network.eval(),
            fingerprint=training.fingerprint,
            selected=selected,
            last=last,
            origin=origin,
            select_by=training.select_by,
            num_epochs=training.recipe.epochs,
            lr_search=self.curve,
            guided_by=self.guided_by,
            precision=training.device.precision,
            **facts,
        )


@dataclass(frozen=True)
class Assembler:
    """Builds what trainings work on, and tries it with an image."""

    feed: Feed
    device: Device
    builder: Builder

    def assemble(self, training: Training, teacher: TeacherShape | None = None) -> Assembly:
        """The network and the loss of a training, fitted to the teacher where the loss reads features.

        Raises UserError where a constructor refuses its arguments, the network cannot take the images, or the two
        networks cannot be paired.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            loss = self._make_loss(training)
        node = training.architecture.node
        for name, term in loss.terms.items():
            if isinstance(term, ReplacesStudent):
                assert teacher is not None
                with naming_the_option(training, name, term):
                    if single(teacher.network).class_outputs is not None:
                        raise user_error(
                            "it takes the teacher's last layer, whose classes are others or in another order",
                            "choose another mode, as in mode=soft",
                        )
                    node = term.student_node(node, teacher.node)
        network = self.make_network(training, node)
        self.try_learner(network, training.architecture.key)
        if training.trains == "head":
            check_head(network, training.architecture.key, self.feed.shape)
        points = pair_up(loss, training, network, teacher.network if teacher else None, self.feed)
        return Assembly(network, node, loss.to(self.device.torch_device), *points)

    def _make_loss(self, training: Training) -> TotalLoss:
        smoothing = training.recipe.label_smoothing
        if training.mode is None:
            alone = {CrossEntropy.part: CrossEntropy(label_smoothing=smoothing)}
            return TotalLoss(alone, smoothing, training.class_weights)
        return TotalLoss(build_objectives(training.mode, self.builder), smoothing, training.class_weights)

    def make_network(self, training: Training, node: Mapping[str, Any]) -> Network:
        """A network with fresh weights, drawn from the training's seed, on the device."""
        data, key = training.data, training.architecture.key
        network = build_network(node, key, self.feed.shape, data.mean, data.std, training.seed, self.builder)
        network.classes, network.crop_ratio = self.feed.classes, self.feed.crop_ratio
        return self.device.place(network)

    def try_network(self, network: Network, key: str) -> None:
        """Pass one black image; raises UserError unless the network takes it and gives a logit for every class."""
        shape = self.feed.shape
        image = torch.zeros(1, shape.in_channels, *shape.image_size, device=self.device.torch_device)
        network.eval()
        try:
            with torch.no_grad():
                logits = network(image)
        except UserError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            place = place_in(error, self.builder.code_dir)
            where = f" ({place})" if place else ""
            raise user_error(
                f"{key} cannot take images of {tuple(image.shape[1:])}: {first_line(error)}{where}",
                "its constructor is given in_channels, image_size and num_classes: let its layers follow from them",
            ) from error
        check_logits(logits, 1, shape.num_classes, key)

    def try_learner(self, network: Network, key: str) -> None:
        """The same for a network that is to learn: it must have weights that can be trained."""
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise user_error(f"{key} has no weights that can be trained", "give its layers as attributes of its module")
        self.try_network(network, key)


def check_logits(logits: Tensor, num_images: int, num_classes: int, key: str) -> None:
    """Raise UserError unless a network has given floating-point logits (num_images, num_classes)."""
    if logits.shape != (num_images, num_classes) or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f" and type {logits.dtype}"
        images = "one image" if num_images == 1 else f"{num_images} images"
        raise user_error(
            f"{key} gives outputs of shape {tuple(logits.shape)}{kind} for {images}",
            f"its forward must return logits of shape (N, {num_classes})",
        )
