"""A student that decides with the teacher's classifier: what SimKD trains and ships."""

from typing import Any, final

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from distill_run.data.source import ImageShape
from distill_run.losses.features import as_maps
from distill_run.models.features import INPUT, choose_points, feature_points, read_shapes
from distill_run.models.layers import last_linear
from distill_run.models.network import Network
from distill_run.rules import FLAG, whole


@final
class ReusedClassifier(nn.Module):
    """The student up to its last features, a projection to the teacher's, and the teacher's classifier, frozen.

    `student` and `teacher` are architectures for the same images; all of the teacher but its last linear layer is
    dropped. Features are the last map, where both networks have one, else vectors, which count as maps of 1x1. The
    projection is 1x1, 3x3 and 1x1 convolutions with batch norm and ReLU, of the teacher's channels divided by `factor`;
    `last_relu` is false for a teacher whose last features may be negative. Source: Chen et al., "Knowledge Distillation
    with the Reused Teacher Classifier" (SimKD), 2022, section 3.
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
    ) -> None:
        super().__init__()
        whole(1).check("factor", factor)
        FLAG.check("last_relu", last_relu)
        shape = ImageShape(in_channels, image_size, num_classes)
        self.place, given = _last_features(student, shape, "student")
        _, wanted = _last_features(teacher, shape, "teacher")
        # As large as the smaller of both, so that nothing is made up.
        self.size = (min(given[1], wanted[1]), min(given[2], wanted[2]))
        self.student = student
        self.projection = _projection(given[0], wanted[0], max(wanted[0] // factor, 1), last_relu)
        if hasattr(student, "normalisation"):  # weights that came trained
            self.normalisation = student.normalisation
        self.classifier = last_linear(teacher, "teacher")[1].requires_grad_(False)
        _replace(student, last_linear(student, "student")[0], nn.Identity())
        module = student.get_submodule(self.place.removesuffix(INPUT))
        if self.place.endswith(INPUT):
            module.register_forward_pre_hook(_keep_input)
        else:
            module.register_forward_hook(_keep_output)
        self.feature_points = {"projected": "projection", "unpooled": "projection", "pooled": f"classifier{INPUT}"}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        self.student(images)
        features = vars(self.student.get_submodule(self.place.removesuffix(INPUT))).pop("kept")
        projected: Tensor = self.projection(adaptive_avg_pool2d(as_maps(features), self.size))
        logits: Tensor = self.classifier(projected.mean((2, 3)))
        return logits


# Hooks without a memory of their own, so that a copied network keeps its features in its own modules.
def _keep_output(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
    vars(module)["kept"] = output


def _keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    vars(module)["kept"] = inputs[0]


def _last_features(architecture: nn.Module, shape: ImageShape, key: str) -> tuple[str, tuple[int, int, int]]:
    """Where the features lie that the classifier is given, before they are pooled if they are, and their (C, H, W)."""
    network = Network(architecture, [0.0] * shape.in_channels, [1.0] * shape.in_channels)
    points = choose_points(["unpooled"], feature_points(network, shape), network, key)
    ((name, size),) = read_shapes(network, points, shape).items()
    channels, height, width = (*size, 1, 1)[:3]
    return points[name], (channels, height, width)


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
