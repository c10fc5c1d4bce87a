"""SimKD: features are projected to the teacher's, and its classifier decides, in training and in what ships."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from conftest import TINY
from distill_run.build import Builder
from distill_run.checkpoint import load_network
from distill_run.config.compose import config_dir
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.models.features import FeatureReader
from distill_run.models.layers import Pool
from distill_run.models.network import Network, build_network
from distill_run.models.outputs import Outputs
from distill_run.models.reused_classifier import ReusedClassifier
from distill_run.objectives.simkd import ReusedTeacherClassifier
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport
from helpers import message_of


class Pooled(nn.Module):
    """A convolution, a pool and a linear layer, whose last map has a name."""

    feature_points = {"stage1": "convolution", "unpooled": "convolution", "pooled": "head:input"}

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, channels, 3, stride, padding=1)
        self.head = nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolution(images).mean((2, 3)))
        return logits


class Dropping(nn.Module):
    """The same with a pool of its own and dropout after it, which does nothing outside of training."""

    feature_points = {"stage1": "convolution", "unpooled": "convolution", "pooled": "pool"}

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = Pool()
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(nn.functional.dropout(self.pool(self.convolution(images)), 0.5, self.training))
        return logits


class Named(Pooled):
    """The same, whose logits have a name."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(images)}


def reused(student: nn.Module, teacher: nn.Module, factor: int = 2, last_relu: bool = True) -> ReusedClassifier:
    shape = {"in_channels": 1, "image_size": (8, 8), "num_classes": 3}
    return ReusedClassifier(**shape, student=student, teacher=teacher, factor=factor, last_relu=last_relu)  # type: ignore[arg-type]


def simkd_run(folder: Path, *overrides: str) -> RunReport:
    small = [*TINY, "training.teacher.epochs=1", "training.student.epochs=1", "baseline=false", "mode=simkd"]
    return run(compose_config([*small, f"store_dir={folder / 'store'}", *overrides]), folder / "run")


@pytest.mark.parametrize(("student_stride", "teacher_stride", "size"), [(1, 1, 8), (1, 2, 4), (2, 1, 4)])
def test_features_meet_at_the_smaller_size(student_stride: int, teacher_stride: int, size: int) -> None:
    student, teacher = Pooled(4, student_stride), Pooled(6, teacher_stride)
    network = reused(student, teacher)
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        maps = student.convolution(images)
        expected = network.projection(nn.functional.adaptive_avg_pool2d(maps, size))
        assert expected.shape == (2, 6, size, size)
        assert torch.equal(network(images), network.classifier(expected.mean((2, 3))))


def test_the_projection_has_the_parameters_of_its_three_convolutions() -> None:
    network = reused(Pooled(4, 1), Pooled(6, 1), factor=2)
    by_hand = (4 * 3 + 2 * 3) + (3 * 3 * 9 + 2 * 3) + (3 * 6 + 2 * 6)
    assert sum(parameter.numel() for parameter in network.projection.parameters()) == by_hand


def test_the_student_loses_its_own_classifier_and_the_teacher_all_but_its_classifier() -> None:
    teacher = Pooled(6, 1)
    network = reused(Pooled(4, 1), teacher)
    assert network.classifier is teacher.head
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"student", "projection", "classifier"}
    assert not any(name.startswith("student.head") for name, _ in network.named_parameters())


def hooks_of(network: nn.Module) -> list[object]:
    return [hook for each in network.modules() for hook in (*each._forward_hooks, *each._forward_pre_hooks)]


@pytest.mark.parametrize("name", ["mlp", "cnn_small", "resnet8", "wrn_16_1", "vgg8", "shufflenet_v2", "vit_tiny"])
def test_a_student_of_ours_ends_at_its_last_features(name: str) -> None:
    node = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    shape, images = ImageShape(1, (32, 32), 3), torch.rand(2, 1, 32, 32)
    whole = build_network(node, "student", shape, [0.0], [1.0], 0, Builder()).eval()
    student = copy.deepcopy(whole.architecture)
    size = {"in_channels": 1, "image_size": (32, 32), "num_classes": 3}
    network = ReusedClassifier(**size, student=student, teacher=Pooled(6, 1), factor=2, last_relu=True)  # type: ignore[arg-type]
    expected = FeatureReader(whole, {"last": network.place})(images).features["last"]
    assert network.is_cut
    assert torch.equal(network.eval().student(images), expected)
    assert not hooks_of(network)


@pytest.mark.parametrize("kind", [partial(Pooled, 4, 1), partial(Named, 4, 1), Dropping])
def test_features_that_the_student_itself_changes_are_read_before_it_does(kind: Callable[[], nn.Module]) -> None:
    student = kind()
    network = reused(student, Pooled(6, 1)).train()
    images = torch.rand(2, 1, 8, 8)
    assert not network.is_cut
    expected = network.classifier(network.projection(student.convolution(images)).mean((2, 3)))  # type: ignore[operator]
    assert torch.equal(network(images), expected)
    assert not hooks_of(network)


def test_the_weights_have_the_names_that_older_files_have() -> None:
    layers = {"projection.0", "projection.1", "projection.3", "projection.4", "projection.6", "projection.7"}
    names = {name.rpartition(".")[0] for name in reused(Pooled(4, 1), Pooled(6, 1)).state_dict()}
    assert names == {"student.convolution", "classifier", *layers}


def test_vectors_are_maps_of_one_pixel() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    assert reused(flat, Pooled(6, 1))(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    assert reused(Pooled(4, 1), flat).size == (1, 1)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    message = message_of(reused, Pooled(4, 1), convolution)
    assert (
        message
        == "teacher has no point unpooled\n  choose from stage1, the path of one of its modules, or another network"
    )


def test_only_without_the_last_relu_negative_features_can_be_reached() -> None:
    for last_relu in (True, False):
        network = reused(Pooled(4, 1), Pooled(6, 1), last_relu=last_relu)
        assert isinstance(network.projection[-1], nn.ReLU) == last_relu


def test_the_loss_is_the_mean_squared_difference_and_leaves_the_teacher_alone() -> None:
    objective = ReusedTeacherClassifier(weight=2.0, factor=2, last_relu=True)
    projected, wanted = torch.rand(2, 3, 2, 2, requires_grad=True), torch.rand(2, 3, 4, 4, requires_grad=True)
    outputs = (Outputs(torch.zeros(2, 3), {"projected": projected}), Outputs(torch.zeros(2, 3), {"unpooled": wanted}))
    loss = objective.term(None, *outputs)  # type: ignore[arg-type]
    pooled = wanted.detach().view(2, 3, 2, 2, 2, 2).mean((3, 5))
    assert loss.item() == pytest.approx((projected.detach() - pooled).square().mean().item(), rel=1e-6)
    torch.autograd.backward(loss)
    assert wanted.grad is None
    assert projected.grad is not None
    assert (objective.task_weight, objective.weight) == (0.0, 2.0)


def test_the_classifier_that_ships_is_the_teachers_and_never_learns(tmp_path: Path) -> None:
    report = simkd_run(tmp_path)
    network = load_network(report.run_dir / "checkpoints" / "student.pt")
    assert isinstance(network.architecture, ReusedClassifier)
    teacher = load_network(next((tmp_path / "store" / "teacher").iterdir()) / "weights.pt")
    head = [module for module in teacher.modules() if isinstance(module, nn.Linear)][-1]
    network(torch.rand(2, 1, 8, 8))
    assert not hooks_of(network)
    assert torch.equal(network.architecture.classifier.weight, head.weight)
    assert torch.equal(network.architecture.classifier.bias, head.bias)
    assert report.summary["guided_by"] == "live teacher"


def test_a_student_of_simkd_can_teach_the_next(tmp_path: Path) -> None:
    report = simkd_run(tmp_path, "assistants=cnn_small")
    assert report.summary["assistants"][0]["architecture"] == "cnn_small"
    network = load_network(report.run_dir / "checkpoints" / "student.pt")
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_copied_network_keeps_its_features_to_itself() -> None:
    network = reused(Pooled(4, 1), Pooled(6, 1)).eval()
    twin = copy.deepcopy(Network(network, [0.5], [0.5]))
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(twin(images), network((images - 0.5) / 0.5))


def built(name: str, **changes: object) -> Network:
    node = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    return build_network(node | changes, "student", ImageShape(1, (32, 32), 3), [0.0], [1.0], 0, Builder()).eval()


def on_small_images(student: nn.Module, widened: bool) -> ReusedClassifier:
    teacher, how = Pooled(6, 1), {"last_relu": True, "widened": widened}
    return ReusedClassifier(
        in_channels=1, image_size=(32, 32), num_classes=3, student=student, teacher=teacher, factor=2, **how
    )


@pytest.mark.parametrize(
    ("name", "place", "channels", "before"),
    [
        ("shufflenet_v2", "stages.2", 464, 1024),
        ("mobilenet_v2", "stages.3", 160, 1280),
        ("shufflenet_v1", "stages.2", 960, 960),
        ("wrn_16_1", "activation", 64, 64),
    ],
)
def test_the_student_is_projected_from_its_last_stage_as_in_the_published_program(
    name: str, place: str, channels: int, before: int
) -> None:
    """Not from the convolution after it, which serves the student's own classifier; files of before keep that."""
    whole, images = built(name), torch.rand(2, 1, 32, 32)
    network = on_small_images(copy.deepcopy(whole.architecture), widened=False).eval()
    assert network.projection.get_submodule("0").in_channels == channels
    assert network.is_cut
    assert torch.equal(network.student(images), FeatureReader(whole, {"last": place})(images).features["last"])
    assert not any(key.startswith("last.") for key in network.student.state_dict())
    old = on_small_images(copy.deepcopy(whole.architecture), widened=True)
    assert old.projection.get_submodule("0").in_channels == before


def test_the_wide_shufflenet_of_the_table_is_projected_from_704_channels() -> None:
    student = built("shufflenet_v2", widths=[176, 352, 704]).architecture
    assert on_small_images(student, widened=False).projection.get_submodule("0").in_channels == 704
