"""Classifiers of torchvision and timm: theirs to the last tensor, whole in our files, and told of when out of reach."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
import yaml
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, resize

from distill_run.build import Builder
from distill_run.checkpoint import load_network, network_content
from distill_run.config.compose import config_dir
from distill_run.config.settings import compose_config
from distill_run.data.source import ImageShape
from distill_run.models.features import feature_points, read_shapes
from distill_run.models.network import Network, build_network, count_macs
from distill_run.models.published import published_images, published_normalisation, without_fetching
from distill_run.stages.given_teacher import IN_ORDER
from distill_run.stages.rehearse import rehearse
from distill_run.stages.training import Architecture
from distill_run.stages.watcher import Watcher
from distill_run.tensor_files import load, load_weights, save
from helpers import message_of
from workshops import open_run

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OFFLINE = (
    "  connect once; or train without them, as in teacher.pretrained=false; or give trained ones, as in "
    "teacher_checkpoint=teacher.pt"
)
TIMM = "timm is not installed: pip install 'distill-run[models]'"


def node_of(library: str, model: str, **changes: object) -> dict[str, Any]:
    node = yaml.safe_load((config_dir() / "model" / f"{library}.yaml").read_text(encoding="utf-8"))
    assert node.keys() >= changes.keys()
    return {**node, "name": model, **changes}


# Grey digits, a teacher of torchvision (the first two) and a student that cost nothing.
SMALL = (
    "teacher=torchvision", "teacher.name=mobilenet_v3_small", "student=mlp", "student.hidden=[4]",
    "dataset.image_size=8", "dataset.mean=[0.4]", "dataset.std=[0.3]", "device=cpu", "device.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def grey_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torchvision's mobilenet_v3_small for one channel and ten classes, as others save it."""
    path = tmp_path_factory.mktemp("grey") / "weights.pth"
    network = build(node_of("torchvision", "mobilenet_v3_small"), channels=1)
    torch.save({"state_dict": network.architecture.state_dict()}, path)
    return path


class Told(Watcher):
    """Keeps the notes of a run."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def noted(self, text: str) -> None:
        self.texts.append(text)


def build(
    node: Mapping[str, Any], size: tuple[int, int] = (32, 32), channels: int = 3, num_classes: int = 10
) -> Network:
    shape = ImageShape(channels, size, num_classes)
    return build_network(node, "teacher", shape, [0.5] * channels, [0.25] * channels, 0, Builder())


def images_of(num: int, channels: int = 3, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.rand(num, channels, *size, generator=torch.Generator().manual_seed(0))


def unreachable(*_: object, **__: object) -> None:
    raise URLError("Name or service not known")


def fail_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)


@pytest.fixture(scope="module")
def small_weights() -> dict[str, Tensor]:
    """What stands for the published weights of mobilenet_v3_small."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return dict(torchvision.models.mobilenet_v3_small(num_classes=1000).state_dict())


@pytest.fixture
def published(small_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: small_weights)
    return small_weights


def test_a_fresh_model_is_the_librarys_own() -> None:
    """The same names and shapes, so that a state dict that was saved elsewhere fits."""
    network = build(node_of("torchvision", "resnet18"), (48, 32))
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(network.architecture.state_dict())
    images = images_of(2, size=(48, 32))
    expected = theirs.eval()(normalize(images, [0.5] * 3, [0.25] * 3))
    assert network.training
    torch.testing.assert_close(network.eval()(images), expected)
    load_weights(network.architecture, theirs.state_dict(), "resnet18")


def test_a_fresh_model_takes_other_channels() -> None:
    for channels in (1, 4):
        network = build(node_of("torchvision", "mobilenet_v3_small"), channels=channels)
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        assert first.weight.shape == (16, channels, 3, 3)
        assert (first.stride, first.padding, first.bias) == ((2, 2), (1, 1), None)
        assert network.eval()(images_of(2, channels)).shape == (2, 10)


def test_the_points_of_a_residual_network_are_its_stages() -> None:
    network, shape = build(node_of("torchvision", "resnet18")), ImageShape(3, (32, 32), 10)
    points = feature_points(network, shape)
    assert points == {
        **{"stage1": "relu", "stage2": "layer1", "stage3": "layer2", "stage4": "layer3"},
        "pooled": "fc:input",
    }
    assert read_shapes(network, points, shape) == {
        **{"stage1": (64, 16, 16), "stage2": (64, 8, 8), "stage3": (128, 4, 4), "stage4": (256, 2, 2)},
        "pooled": (512,),
    }


def test_a_vision_transformer_is_built_for_the_size_of_the_images() -> None:
    """As many positions as there are patches, and one for the class token."""
    with torch.device("meta"):  # the name stands for 86 million parameters, which nobody draws
        network = build(node_of("torchvision", "vit_b_16"), (64, 64))
    assert network.architecture.get_parameter("encoder.pos_embedding").shape == (1, 4 * 4 + 1, 768)


def test_further_arguments_reach_the_constructor() -> None:
    network = build(node_of("torchvision", "mobilenet_v3_small", arguments={"dropout": 0.75}))
    assert 0.75 in [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    told = message_of(build, node_of("torchvision", "resnet18", arguments={"depth": 3}))
    assert told.startswith("teacher: ResNet.__init__() got an unexpected keyword argument 'depth'\n")


def test_published_weights_see_images_as_they_were_trained_to(published: dict[str, Tensor]) -> None:
    network = build(node_of("torchvision", "mobilenet_v3_small", pretrained=True), num_classes=1000).eval()
    theirs = torchvision.models.mobilenet_v3_small(num_classes=1000).eval()
    theirs.load_state_dict(published)
    images = images_of(2)
    expected = theirs(resize(normalize(images, *IMAGENET), [224, 224], antialias=True))
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(network)(images), network(images))


def test_published_weights_keep_all_but_the_layer_that_decides(published: dict[str, Tensor]) -> None:
    network = build(node_of("torchvision", "mobilenet_v3_small", pretrained=True), num_classes=7)
    weights = network.architecture.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], published.get(name, torch.empty(0)))}
    assert changed == {"classifier.3.weight", "classifier.3.bias"}
    assert weights["classifier.3.weight"].shape == (7, 1024)


def test_published_kernels_give_for_grey_images_what_they_gave_for_equal_colours(published: dict[str, Tensor]) -> None:
    node = node_of("torchvision", "mobilenet_v3_small", pretrained=True, input_size=32)
    grey = build(node, channels=1)
    kernel = published["features.0.0.weight"]
    torch.testing.assert_close(grey.architecture.get_parameter("features.0.0.weight"), kernel.sum(1, keepdim=True))
    four = build(node, channels=4).architecture.get_parameter("features.0.0.weight")
    torch.testing.assert_close(four.sum(1), kernel.sum(1))
    assert grey.mean.flatten().tolist() == pytest.approx([sum(IMAGENET[0]) / 3])
    assert grey.std.flatten().tolist() == pytest.approx([sum(IMAGENET[1]) / 3])


def test_a_network_of_published_weights_is_whole_in_its_file(
    published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = node_of("torchvision", "mobilenet_v3_small", pretrained=True)
    network = build(node, num_classes=3).eval()
    network.classes = ("a", "b", "c")
    save(tmp_path / "student.pt", network_content(network, node, "torchvision"))
    fail_to_fetch(monkeypatch)
    again = load_network(tmp_path / "student.pt")
    assert torch.equal(again(images_of(2)), network(images_of(2)))
    content = load(tmp_path / "student.pt")
    assert content["architecture"] == {**node, "pretrained": False, "input_size": [224, 224]}
    assert content["mean"] == pytest.approx(IMAGENET[0])


def test_architectures_within_architectures_are_not_fetched_for_either() -> None:
    inner = node_of("torchvision", "resnet18", pretrained=True, input_size=64)
    fresh = node_of("torchvision", "resnet18")
    own = {"_target_": "mine.Net", "pretrained": True}
    node = {"_target_": "reused", "student": inner, "teacher": fresh, "other": own, "factor": 2}
    settled = without_fetching(node)
    assert settled == {**node, "student": {**inner, "pretrained": False}}
    assert inner["pretrained"] is True


def test_images_are_resized_only_where_they_are_of_another_size() -> None:
    shape = ImageShape(3, (32, 32), 10)
    plain, same, large = (
        build(node_of("torchvision", "mobilenet_v3_small", input_size=size)) for size in (None, 32, [64, 32])
    )
    assert count_macs(plain, shape) == count_macs(same, shape)
    assert count_macs(large, shape) > 1.5 * count_macs(plain, shape)
    assert not plain.architecture._forward_pre_hooks
    assert not same.architecture._forward_pre_hooks


def test_images_that_are_too_small_are_told_and_can_be_resized() -> None:
    told = message_of(build, node_of("torchvision", "squeezenet1_1"), (8, 8))
    first, remedy = told.splitlines()
    assert first.startswith("squeezenet1_1 cannot take images of 8x8: ")
    assert remedy == "  let them be resized to what it takes, as in teacher.input_size=224"
    assert build(node_of("torchvision", "squeezenet1_1", input_size=32), (8, 8)).eval()(images_of(1)).shape == (1, 10)


def test_a_mistake_is_told_in_two_lines() -> None:
    name = "the name of a classifier of torchvision, as in resnet18"
    for key, value, words in (
        ("name", "resnet81", f"{name}, resnet152, resnet101"),
        ("name", "???", name),
        ("name", "inception_v3", "another name; torchvision's inception_v3 gives more than logits in training"),
        ("pretrained", 1, "true or false, or a file with a state dict"),
        ("input_size", [32], "pixels a side, or [height,width] in pixels, or null"),
        (
            "arguments",
            None,
            "further arguments of the model's constructor, as in {dropout: 0.2}; weights have keys of their own",
        ),
    ):
        told = message_of(build, node_of("torchvision", "resnet18", **{key: value}))
        assert told == f"teacher.{key}={'null' if value is None else value} is not accepted\n  write {words}"


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_pretrained_teacher_that_the_library_does_not_know_is_told_before_it_is_built(library: str) -> None:
    pytest.importorskip(library)
    node = node_of(library, "resnet18x", pretrained=True)
    name = f"teacher.name=resnet18x is not accepted\n  write the name of a classifier of {library}, as in resnet18"
    assert message_of(published_images, node).startswith(name)
    assert message_of(published_normalisation, node, 3).startswith(name)


def test_weights_out_of_reach_are_told_with_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_fetch(monkeypatch)
    assert message_of(build, node_of("torchvision", "mobilenet_v3_small", pretrained=True)) == (
        "the published weights of mobilenet_v3_small cannot be fetched: <urlopen error Name or service not known>\n"
        + OFFLINE
    )


def test_a_library_is_chosen_as_any_architecture() -> None:
    settings = compose_config(["teacher=timm", "teacher.name=resnet18", "student=torchvision"])
    assert settings.teacher == node_of("timm", "resnet18")
    assert settings.student["name"] == "???"


def test_a_network_of_a_library_is_called_by_its_own_name() -> None:
    assert Architecture("student", "torchvision", node_of("torchvision", "resnet18")).name == "resnet18"
    assert Architecture("student", "timm", node_of("timm", "resnet18.a1_in1k")).name == "resnet18.a1_in1k"
    own = {"_target_": "mine.Net", "name": "anything"}
    assert Architecture("student", "own", own).name == "own"


def test_timm_that_is_not_installed_is_told_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    expected = "this architecture needs the package timm\n  pip install 'distill-run[models]'"
    assert message_of(build, node_of("timm", "resnet18")) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_a_fresh_model_of_timm_is_the_librarys_own(channels: int) -> None:
    timm = pytest.importorskip("timm", reason=TIMM)
    network = build(node_of("timm", "test_resnet"), channels=channels)
    theirs = timm.create_model("test_resnet", num_classes=10, in_chans=channels)
    theirs.load_state_dict(network.architecture.state_dict())
    images = images_of(2, channels)
    torch.testing.assert_close(network.eval()(images), theirs.eval()((images - 0.5) / 0.25))


def test_the_points_of_a_model_of_timm_are_its_stages() -> None:
    pytest.importorskip("timm", reason=TIMM)
    network, shape = build(node_of("timm", "resnet10t")), ImageShape(3, (32, 32), 10)
    stages = {"stage1": "act1", "stage2": "layer1", "stage3": "layer2", "stage4": "layer3"}
    assert feature_points(network, shape) == {**stages, "pooled": "fc:input"}


def test_a_vision_transformer_of_timm_is_built_for_the_size_of_the_images() -> None:
    """Two patches a side of 32 pixels, and a class token; with smaller patches, eight a side."""
    pytest.importorskip("timm", reason=TIMM)
    for arguments, tokens in (({}, 2 * 2 + 1), ({"patch_size": 4}, 8 * 8 + 1)):
        network = build(node_of("timm", "test_vit", arguments=arguments))
        assert network.architecture.get_parameter("pos_embed").shape == (1, tokens, 64)
        assert network.eval()(images_of(2)).shape == (2, 10)


def test_published_weights_of_timm_see_images_as_they_were_trained_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on 160 pixels a side; a file of the network holds all that is needed."""
    timm = pytest.importorskip("timm", reason=TIMM)
    theirs = timm.create_model("test_resnet").eval()
    builder = "timm.models._builder.load_state_dict_from_hf"
    monkeypatch.setattr(builder, lambda *_, **__: copy.deepcopy(theirs.state_dict()))
    node = node_of("timm", "test_resnet", pretrained=True)
    network = build(node, num_classes=1000).eval()
    expected = theirs(resize(normalize(images_of(2), [0.5] * 3, [0.5] * 3), [160, 160], antialias=True))
    torch.testing.assert_close(network(images_of(2)), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(builder, unreachable)
    network.classes = tuple(map(str, range(1000)))
    save(tmp_path / "student.pt", network_content(network, node, "timm"))
    again = load_network(tmp_path / "student.pt")
    assert torch.equal(again(images_of(2)), network(images_of(2)))
    assert load(tmp_path / "student.pt")["architecture"]["input_size"] == [160, 160]


GREY = ([sum(IMAGENET[0]) / 3], [sum(IMAGENET[1]) / 3])


@pytest.mark.parametrize(
    ("chosen", "expected", "note"),
    [
        (
            "null",
            GREY,
            "the file holds no normalisation, that of torchvision's published weights is taken; "
            "teacher_normalisation=dataset takes the dataset's",
        ),
        ("published", GREY, None),
        ("dataset", ([0.4], [0.3]), None),
        ("[[0.5],[0.2]]", ([0.5], [0.2]), None),
    ],
)
def test_a_state_dict_takes_the_normalisation_of_its_library_or_what_is_chosen(
    chosen: str, expected: tuple[list[float], list[float]], note: str | None, grey_file: Path, tmp_path: Path
) -> None:
    overrides = [*SMALL, f"teacher_checkpoint={grey_file}", f"teacher_normalisation={chosen}"]
    (teacher,) = open_run(tmp_path, overrides).lineup.loaded
    assert teacher.notes == ("took 'state_dict'", *([note] if note else []), IN_ORDER)
    assert teacher.network.mean.flatten().tolist() == pytest.approx(expected[0])
    assert teacher.network.std.flatten().tolist() == pytest.approx(expected[1])


def test_a_normalisation_that_cannot_be_taken_is_told(grey_file: Path, tmp_path: Path) -> None:
    given = f"teacher_checkpoint={grey_file}"
    assert message_of(open_run, tmp_path, [*SMALL, given, "teacher_normalisation=[[0.5,0.5],[0.2,0.2]]"]) == (
        "teacher_normalisation has 2 means, the images have 1 channels\n"
        "  write a mean and a standard deviation for each channel"
    )
    assert message_of(rehearse, compose_config(["teacher_normalisation=dataset"])) == (
        "teacher_normalisation is for a teacher_checkpoint, and there is none\n"
        "  leave it out, or give a state dict, as in teacher_checkpoint=my_weights.pt"
    )


def test_weights_of_other_classes_are_told_with_the_key_that_takes_all_but_the_last_layer(
    small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(small_weights, tmp_path / "weights.pth")
    given = [*SMALL, "dataset.image_size=16", f"teacher_checkpoint={tmp_path / 'weights.pth'}"]
    assert message_of(open_run, tmp_path, given) == (
        f"teacher_checkpoint={tmp_path / 'weights.pth'} was made for 1,000 classes, the dataset has 10\n"
        "  name its outputs for them: teacher_classes=imagenet, or FILE with a line for each class, as in "
        "cat: tabby, tiger cat; or train it from these weights with a new last layer: "
        f"teacher.pretrained={tmp_path / 'weights.pth'}"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_starts_from_a_file_of_weights_without_their_last_layer(
    channels: int, small_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"model": small_weights}, tmp_path / "weights.pth")
    node = node_of("torchvision", "mobilenet_v3_small", pretrained=str(tmp_path / "weights.pth"))
    network = build(node, channels=channels, num_classes=7)
    weights = network.architecture.state_dict()
    others = {name for name in weights if not torch.equal(weights[name], small_weights[name])}
    assert others == {"classifier.3.weight", "classifier.3.bias"} | (
        {"features.0.0.weight"} if channels == 1 else set()
    )
    kernel = small_weights["features.0.0.weight"]
    torch.testing.assert_close(weights["features.0.0.weight"].sum(1), kernel.sum(1))
    assert network.mean.mean().item() == pytest.approx(sum(IMAGENET[0]) / 3)
    whole = build(node, num_classes=1000).architecture.state_dict()
    assert all(torch.equal(whole[name], small_weights[name]) for name in whole)
    assert without_fetching(node) == {**node, "pretrained": False, "input_size": [224, 224]}
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "weights.pth")
    assert message_of(build, node).startswith(
        "the checkpoint does not fit mobilenet_v3_small: it lacks features.0.0.weight, features.0.1.weight, "
    )


@pytest.mark.parametrize(("library", "name"), [("torchvision", "mobilenet_v3_small"), ("timm", "test_resnet")])
def test_a_file_of_weights_for_grey_images_keeps_its_first_convolution(library: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=TIMM)
    grey = build(node_of(library, name), channels=1).architecture.state_dict()
    torch.save(grey, tmp_path / "weights.pth")
    node = node_of(library, name, pretrained=str(tmp_path / "weights.pth"), input_size=32)
    weights = build(node, channels=1).architecture.state_dict()
    assert all(torch.equal(weights[key], grey[key]) for key in grey)
    key = next(key for key in grey if key.endswith("weight"))
    assert f"{key} {tuple(grey[key].shape)} instead of " in message_of(build, node, channels=3)


def test_squeezenet_whose_last_convolution_decides_starts_from_weights_of_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = torchvision.models.squeezenet1_1(num_classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: theirs)
    torch.save(theirs, tmp_path / "weights.pth")
    for pretrained in (True, str(tmp_path / "weights.pth")):
        network = build(node_of("torchvision", "squeezenet1_1", pretrained=pretrained, input_size=32), num_classes=7)
        weights = network.architecture.state_dict()
        changed = {key for key in weights if not torch.equal(weights[key], theirs[key])}
        assert changed == {"classifier.1.weight", "classifier.1.bias"}
        assert network.eval()(images_of(2)).shape == (2, 7)


def test_a_convolution_of_the_librarys_own_class_keeps_it_for_other_channels(tmp_path: Path) -> None:
    """timm's tf_ networks pad by the size of the images: grey images give what equal colours gave."""
    timm = pytest.importorskip("timm", reason=TIMM)
    theirs = timm.create_model("test_efficientnet", num_classes=10, pad_type="same")
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    node = node_of(
        "timm", "test_efficientnet", pretrained=str(tmp_path / "weights.pth"), input_size=33,
        arguments={"pad_type": "same"},
    )  # fmt: skip
    ours, grey = build(node, (33, 33), channels=1).architecture, images_of(2, 1, (33, 33))
    expected = theirs.eval()(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours.eval()(grey), expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_timm_starts_from_a_file_of_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason=TIMM)
    theirs = timm.create_model("test_resnet", num_classes=5).state_dict()
    torch.save(theirs, tmp_path / "weights.pth")
    node = node_of("timm", "test_resnet", pretrained=str(tmp_path / "weights.pth"))
    for channels, changed in ((3, {"fc.weight", "fc.bias"}), (1, {"fc.weight", "fc.bias", "conv1.0.weight"})):
        weights = build(node, channels=channels).architecture.state_dict()
        assert {name for name in weights if not torch.equal(weights[name], theirs[name])} == changed


def test_a_training_depends_on_the_content_of_the_file_that_it_starts_from(
    tmp_path: Path,
) -> None:
    file = tmp_path / "weights.pth"
    own = [*SMALL, f"teacher.pretrained={file}", "teacher.input_size=32"]
    assert message_of(rehearse, compose_config(own)) == f"there is no checkpoint {file}\n  check the path"
    fingerprints = set()
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            torch.save({"model": torchvision.models.mobilenet_v3_small(num_classes=3).state_dict()}, file)
        told: list[str] = []
        lineup = open_run(tmp_path, own, Told(told)).lineup
        fingerprints.add(lineup.teachers[0].training.fingerprint)
        assert told[-2:] == [
            f"teacher: training starts from the weights in {file}, with a new last layer where its classes are others",
            "teacher: took 'model'",
        ]
    assert len(fingerprints) == 2


def test_a_state_dict_of_another_architecture_takes_the_normalisation_of_the_dataset(tmp_path: Path) -> None:
    own = [*SMALL[2:], "teacher=mlp", "teacher.hidden=[4]"]
    network = open_run(tmp_path, own).lineup.teachers[0].assembly.network
    torch.save(network.architecture.state_dict(), tmp_path / "mlp.pt")
    (teacher,) = open_run(tmp_path, [*own, f"teacher_checkpoint={tmp_path / 'mlp.pt'}"]).lineup.loaded
    assert teacher.network.mean.tolist() == network.mean.tolist()
    assert teacher.notes == (
        "the file holds no normalisation, the dataset's is taken; "
        "teacher_normalisation=[[mean,...],[std,...]] takes another",
        IN_ORDER,
    )
    wanted = [*own, f"teacher_checkpoint={tmp_path / 'mlp.pt'}", "teacher_normalisation=published"]
    assert message_of(open_run, tmp_path, wanted) == (
        "teacher_normalisation=published, but no weights are published for teacher=mlp\n"
        "  write teacher_normalisation=dataset, or the values, as in [[0.5,0.5,0.5],[0.25,0.25,0.25]]"
    )
    network.classes = tuple("0123456789")
    save(tmp_path / "whole.pt", network_content(network, {}, "mlp"))
    wanted = [*own, f"teacher_checkpoint={tmp_path / 'whole.pt'}", "teacher_normalisation=dataset"]
    assert message_of(open_run, tmp_path, wanted) == (
        f"teacher_normalisation=dataset, but {tmp_path / 'whole.pt'} holds a normalisation\n"
        "  leave teacher_normalisation out"
    )


def test_what_timm_has_not_or_cannot_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason=TIMM)
    errors = pytest.importorskip("huggingface_hub.errors")
    assert message_of(build, node_of("timm", "resnet01t")) == (
        "teacher.name=resnet01t is not accepted\n"
        "  write the name of a classifier of timm, as in resnet50t, resnet14t, resnet10t"
    )
    assert message_of(build, node_of("timm", "resnet10t.no_such_weights")).startswith(
        "teacher.name=resnet10t.no_such_weights is not accepted\n"
    )
    assert message_of(build, node_of("timm", "botnet50ts_256", pretrained=True)) == (
        "teacher.pretrained=true is not accepted\n  write false; timm has no weights for botnet50ts_256"
    )

    def absent(*_: object, **__: object) -> None:
        raise errors.LocalEntryNotFoundError("An error happened\nwhile looking")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", absent)
    told = message_of(build, node_of("timm", "test_resnet", pretrained=True))
    assert told == "the published weights of test_resnet cannot be fetched: An error happened\n" + OFFLINE


@pytest.mark.parametrize("damage", ["half", "empty", "other"])
def test_cached_weights_that_are_damaged_are_named(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir()
    torch.save({"a": torch.ones(100)}, path)
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "other": content}[damage])
    what, remedy = message_of(build, node_of("torchvision", "squeezenet1_1", pretrained=True)).split("\n")
    assert what.startswith(f"the published weights of squeezenet1_1 in {path} cannot be read: ")
    assert remedy == f"  remove {path}, and they are fetched again"


def test_weights_that_came_damaged_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "0c", got "e3")')

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", damaged)
    assert message_of(build, node_of("torchvision", "mobilenet_v3_small", pretrained=True)) == (
        'the published weights of mobilenet_v3_small cannot be fetched: invalid hash value (expected "0c", got "e3")\n'
        + OFFLINE
    )
