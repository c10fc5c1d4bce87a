"""A student that decides with the teacher's classifier: what SimKD trains and ships."""

import copy
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from distill_run.data.source import ImageShape
from distill_run.losses.numerics import as_maps
from distill_run.models.features import INPUT, FeatureReader, choose_points, feature_points, read_shapes
from distill_run.models.layers import last_linear
from distill_run.models.network import Network, logits_of
from distill_run.rules import FLAG, whole


@final
class ReusedClassifier(nn.Module):
    """The student up to its last features, a projection to the teacher's features, and the teacher's frozen classifier.

    `student` and `teacher` are architectures for the same images; of the teacher, only the last linear layer is kept.
    The features are the last map before it is pooled, or the vector that the classifier receives where there is no such
    map; a vector counts as a map of 1x1. A convolution that gives the student's last stage other channels, as in
    MobileNetV2, goes with its classifier, as in the published program; `widened` keeps it, as earlier versions did. The
    projection consists of a 1x1, a 3x3 and a 1x1 convolution with batch norm and ReLU; the inner ones have the
    teacher's channels divided by `factor`. `last_relu` is false for a teacher whose last features may be negative.
    Source: Chen et al., "Knowledge Distillation with the Reused Teacher Classifier" (SimKD), 2022, section 3.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: tuple[int, int],
        num_classes: int,
        student: nn.Module,
        teacher: nn.Module,
        factor: int,
        last_relu: bool,
        widened: bool = True,
    ) -> None:
        super().__init__()
        whole(1).check("factor", factor)
        FLAG.check("last_relu", last_relu)
        shape = ImageShape(in_channels, image_size, num_classes)
        self.place, given = (_last_features if widened else _last_stage)(student, shape, "student")
        _, wanted = _last_features(teacher, shape, "teacher")
        self.size = (min(given[1], wanted[1]), min(given[2], wanted[2]))  # no pixels are made up
        self.student = student
        self.projection = _projection(given[0], wanted[0], max(wanted[0] // factor, 1), last_relu)
        if hasattr(student, "normalisation"):  # the student's weights were trained with it
            self.normalisation = student.normalisation
        self.classifier = last_linear(teacher, "teacher")[1].requires_grad_(False)
        self.is_cut = _cut(student, self.place, shape)
        self.feature_points = {"projected": "projection", "unpooled": "projection", "pooled": f"classifier{INPUT}"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        features = logits_of(self.student(images), self.student) if self.is_cut else self._read_features(images)
        projected: Tensor = self.projection(adaptive_avg_pool2d(as_maps(features), self.size))
        logits: Tensor = self.classifier(projected.mean((2, 3)))
        return logits

    def _read_features(self, images: Tensor) -> Tensor:
        """The student's last features where its own code pools them: read by a hook that is removed at once."""
        kept: list[Tensor] = []
        module = self.student.get_submodule(self.place.removesuffix(INPUT))
        if self.place.endswith(INPUT):
            hook = module.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        else:
            hook = module.register_forward_hook(lambda _, __, output: kept.append(output))
        with hook:
            self.student(images)
        return kept[-1]


def _last_features(architecture: nn.Module, shape: ImageShape, key: str) -> tuple[str, tuple[int, int, int]]:
    """The place of the last features, as ReusedClassifier explains them, and their (C, H, W)."""
    network = _unnormalised(architecture, shape)
    points = choose_points(["unpooled"], feature_points(network, shape), network, key)
    ((name, size),) = read_shapes(network, points, shape).items()
    channels, height, width = (*size, 1, 1)[:3]
    return points[name], (channels, height, width)


def _last_stage(architecture: nn.Module, shape: ImageShape, key: str) -> tuple[str, tuple[int, int, int]]:
    """The same without a convolution that the architecture has after its last stage, for more channels."""
    last = _last_features(architecture, shape, key)
    network = _unnormalised(architecture, shape)
    points = feature_points(network, shape)
    if not {"stage1", "unpooled"} <= points.keys():
        return last
    stage = choose_points(["stage-1"], points, network, key)
    ((name, size),) = read_shapes(network, stage, shape).items()
    return last if size[0] == last[1][0] else (stage[name], (size[0], size[1], size[2]))


def _cut(student: nn.Module, place: str, shape: ImageShape) -> bool:
    """Remove what follows the last features where that is a module: a convolution, the pool, the classifier.

    Returns whether the student's output is now its last features. It is not where its own code changes them further.
    """
    network = _unnormalised(student, shape)
    classifier, _ = last_linear(student, "student")
    points = feature_points(network, shape)
    pool, last = points.get("pooled", place), points.get("unpooled", place)
    values = _values_at([pool, f"{classifier}{INPUT}"], network, shape)
    if pool != place and not pool.endswith(INPUT) and values[0] is values[1]:
        _replace(student, pool, nn.Identity())
    if last != place:
        _replace(student, last, nn.Identity())
    _replace(student, classifier, nn.Identity())
    features, output = _values_at([place, ""], network, shape)
    return features is output


def _values_at(places: list[str], network: Network, shape: ImageShape) -> list[Tensor]:
    """The tensors at places of the network for two black images; the place "" is its output.

    A copy of the network computes them in training mode, in which dropout gives a new tensor.
    """
    read = FeatureReader(copy.deepcopy(network).train(), {place: place for place in places if place})
    images = torch.zeros(2, shape.in_channels, *shape.image_size, device=network.mean.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs = read(images)
    return [outputs.features[place] if place else outputs.logits for place in places]


def _unnormalised(architecture: nn.Module, shape: ImageShape) -> Network:
    return Network(architecture, [0.0] * shape.in_channels, [1.0] * shape.in_channels)


def _projection(before: int, after: int, middle: int, last_relu: bool) -> nn.Sequential:
    layers = [
        *(nn.Conv2d(before, middle, kernel_size=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
        *(nn.Conv2d(middle, middle, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
        *(nn.Conv2d(middle, after, kernel_size=1, bias=False), nn.BatchNorm2d(after)),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if last_relu else []))


def _replace(architecture: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(architecture.get_submodule(parent), name, module)
