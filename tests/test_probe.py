"""teacher_trains=head: only the last layer learns, from features computed once, and the teacher is an ordinary one."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from distill_run.checkpoint import load_network
from distill_run.data.feed import MemoryFeed
from distill_run.data.source import ImageShape
from distill_run.engine.evaluate import measure, predict
from distill_run.engine.interrupt import StopRequest
from distill_run.models.features import FeatureReader
from distill_run.models.network import Network
from distill_run.stages.probe import check_head, take_head
from distill_run.stages.trained import Origin
from distill_run.stages.watcher import Watcher
from distill_run.stages.workshop import make_trainer
from helpers import fill, message_of
from workshops import Opened, open_run


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = torchvision.models.mobilenet_v3_small(num_classes=5)
        for norm in model.modules():  # statistics of some images, or else all images have the same features
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0
        model(torch.randn(64, 3, 32, 32))
        torch.save(model.state_dict(), path)
    return path


def open_probe(folder: Path, weights: Path, *overrides: str, watcher: Watcher | None = None) -> Opened:
    own = (
        "teacher=torchvision", "teacher.name=mobilenet_v3_small", f"teacher.pretrained={weights}",
        "teacher.input_size=32", "teacher_trains=head", "teacher_head_views=2", "training.teacher.epochs=3",
        "training.teacher.batch_size=32", "student=mlp", "student.hidden=[4]", "dataset.train_fraction=0.2",
        "dataset.image_size=8", "dataset.augment.crop.padding=1", "device=cpu", "device.precision=fp32",
    )  # fmt: skip
    return open_run(folder, [*own, *overrides], watcher)


class Told(Watcher):
    """Keeps the notes of a run and the states that its trainings save."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.states: list[dict[str, Any]] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def state_saved(self, state: dict[str, Any]) -> None:
        self.states.append(copy.deepcopy(state))


def test_only_the_last_layer_learns_and_the_teacher_is_an_ordinary_network(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    in_order = MemoryFeed.view_in_order

    def counted(self: MemoryFeed, views: Any, view: int, chunk_size: int) -> Iterator[Any]:
        rendered.append(view)
        return in_order(self, views, view, chunk_size)

    monkeypatch.setattr(MemoryFeed, "view_in_order", counted)
    told = Told()
    opened = open_probe(tmp_path, weights_file, "training.teacher.epochs=30", watcher=told)
    before = copy.deepcopy(opened.lineup.teachers[0].assembly.network.architecture.state_dict())
    teacher, feed = opened.teacher(), opened.workshop.feed
    after = teacher.own_network.architecture.state_dict()
    assert {key for key in after if not torch.equal(after[key], before[key])} == {
        "classifier.3.weight",
        "classifier.3.bias",
    }
    assert rendered == [0, 1]  # two views in thirty epochs
    assert (
        f"teacher: a new last layer learns from 1,024 frozen features of each image; "
        f"those of 2 views are kept ({len(feed.train) * 2 * 1024 * 4 / 1e6:.3g}MB)"
    ) in told.notes
    whole = measure(predict(teacher.own_network, feed.val), feed.val.targets)
    assert teacher.selected.val == pytest.approx(whole, rel=1e-4)
    assert torch.equal(teacher.selected.test_logits, predict(teacher.own_network, feed.test))
    assert whole["accuracy"] > 0.2  # of ten classes, from the features of random weights
    again = open_probe(tmp_path, weights_file, "training.teacher.epochs=30").teacher()
    assert (again.origin, again.fingerprint) == (Origin.REUSED, teacher.fingerprint)
    assert torch.equal(again.selected.test_logits, teacher.selected.test_logits)
    stored = load_network(tmp_path / "store" / "teacher" / teacher.fingerprint / "weights.pt")
    torch.testing.assert_close(predict(stored, feed.test), teacher.selected.test_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mixup", [0, 0.5])
def test_features_are_those_of_the_images_that_a_training_would_see(
    mixup: float, weights_file: Path, tmp_path: Path
) -> None:
    opened = open_probe(tmp_path, weights_file, f"training.teacher.mixup={mixup}")
    (prepared,) = opened.lineup.teachers
    training, network = prepared.training, prepared.assembly.network.eval()
    features = make_trainer(prepared, opened.workshop).batches
    images = opened.workshop.feed.batches(training.views, 32, training.seed)
    assert features.num_steps == images.num_steps
    for epoch in (1, 2, 3):
        batch, expected = (next(iter(batches.epoch(epoch, first_step=1))) for batches in (features, images))
        with torch.no_grad(), FeatureReader(network, {"head": "classifier.3:input"}) as read:
            values = read(expected.images).features["head"]
        torch.testing.assert_close(batch.images[:, :, 0, 0], values, rtol=1e-4, atol=1e-5)
        for name in ("indices", "targets", "view", "epoch", "step", "partner_targets", "shares"):
            mine, theirs = getattr(batch, name), getattr(expected, name)
            assert torch.equal(mine, theirs) if isinstance(theirs, Tensor) else mine == theirs, name
        assert (batch.shares is None) == (mixup == 0)


def test_a_probe_that_was_cut_short_goes_on_to_the_same_weights(weights_file: Path, tmp_path: Path) -> None:
    told = Told()
    opened = open_probe(tmp_path, weights_file)
    whole, resumed = (make_trainer(opened.lineup.teachers[0], opened.workshop) for _ in range(2))
    whole.fit(told, StopRequest())
    resumed.load_state(told.states[0])
    resumed.fit(Told(), StopRequest())
    assert len(told.states) == 3
    theirs = whole.learner.network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in resumed.learner.network.state_dict().items())


def test_what_is_trained_is_part_of_the_fingerprint(weights_file: Path, tmp_path: Path) -> None:
    fingerprints = {
        open_probe(tmp_path, weights_file, *changes).lineup.teachers[0].training.fingerprint
        for changes in ([], ["teacher_trains=all"], ["teacher_head_views=1"])
    }
    assert len(fingerprints) == 3


@pytest.mark.parametrize("has_bias", [True, False])
def test_what_a_probe_has_learnt_is_folded_into_the_last_layer(has_bias: bool) -> None:
    whole = Network(nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=has_bias)), [0.0], [1.0]).eval()
    norm = [nn.BatchNorm1d(6, affine=False)] if has_bias else []
    probe = Network(nn.Sequential(nn.Flatten(), *norm, nn.Linear(6, 3, bias=has_bias)), [0.0], [1.0])
    fill(probe)
    features = torch.rand(50, 6, 1, 1, generator=torch.Generator().manual_seed(0)) * 9 + 4
    probe.train()(features)
    take_head(probe, whole, "teacher")
    torch.testing.assert_close(whole(features), probe.eval()(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_the_families_of_timm_end_in_a_linear_layer(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'distill-run[models]'")
    model = timm.create_model(name, num_classes=3, **({"img_size": 32} if name == "test_vit" else {}))
    check_head(Network(model, [0.5] * 3, [0.5] * 3), "teacher", ImageShape(3, (32, 32), 3))


class Scaled(nn.Sequential):
    """A network whose last linear layer does not have the last word."""

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = 2 * super().forward(images)  # type: ignore[no-untyped-call]
        return result


def test_a_network_that_does_not_end_in_a_linear_layer_is_refused() -> None:
    shape = ImageShape(1, (4, 4), 3)
    fine = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    check_head(Network(fine, [0.5], [0.5]), "teacher", shape)
    assert message_of(check_head, Network(Scaled(*fine), [0.5], [0.5]), "teacher", shape) == (
        "teacher_trains=head, but the last linear layer of teacher, 1, does not give its logits\n"
        "  write teacher_trains=all, or choose another architecture"
    )
    assert message_of(check_head, Network(nn.Flatten(), [0.5], [0.5]), "teacher", shape) == (
        "teacher has no linear layer that decides\n  choose another architecture"
    )
