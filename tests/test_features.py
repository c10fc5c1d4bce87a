"""Features: which points there are, what is read at them, and that reading leaves the network as it was."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_run.data.source import ImageShape
from distill_run.engine.compilation import compiled
from distill_run.models.features import FeatureReader, choose_points, dry_pass, feature_points, read_shapes
from distill_run.models.network import Network, count_macs
from helpers import TinyClassifier, message_of
from test_device import wanted

SHAPE = ImageShape(1, (8, 8), 3)
MEAN, STD = [0.4], [0.2]


class Staged(nn.Module):
    """Two stages whose activations stand apart from them, dropout and a linear layer."""

    feature_points = {
        "stem": "stem",
        "stage1": "activations.0",
        "stage2": "activations.1",
        "stage1_preact": "activations.0:input",
        "stage2_preact": "activations.1:input",
        "unpooled": "activations.1",
        "pooled": "head:input",
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.stages = nn.ModuleList([nn.Conv2d(2, 3, 3, 2, padding=1), nn.Conv2d(3, 4, 3, 2, padding=1)])
        self.norm = nn.BatchNorm2d(4)
        self.activations = nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        first = self.activations[0](self.stages[0](self.stem(images)))
        second = self.activations[1](self.norm(self.stages[1](first)))
        logits: Tensor = self.head(self.dropout(second).mean((2, 3)))
        return logits


class Foreign(nn.Module):
    """An architecture of somebody else's, which names no points."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 5, 3, padding=1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.extra = nn.Linear(5, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.extra(self.pool(self.down(self.block(images))).flatten(1)))
        return logits


def made(make: Callable[[], nn.Module] = Staged) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(make(), MEAN, STD)


def images(seed: int = 0, num: int = 4) -> Tensor:
    return torch.rand(num, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def choose(*words: str, network: Network | None = None) -> dict[str, str]:
    network = network or made()
    return choose_points(words, feature_points(network, SHAPE), network, "student")


def hooks_of(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_features_are_what_the_modules_at_their_places_give_and_are_given() -> None:
    network = made().eval()
    architecture: Any = network.architecture
    places = {"stem": "stem", "before": "activations.0:input", "after": "activations.0", "vector": "head:input"}
    outputs = FeatureReader(network, places)(images())
    stem = architecture.stem((images() - 0.4) / 0.2)
    before = architecture.stages[0](stem)
    last = architecture.norm(architecture.stages[1](F.relu(before))).relu()
    expected = {"stem": stem, "before": before, "after": F.relu(before), "vector": last.mean((2, 3))}
    assert list(outputs.features) == list(places)
    for name, value in expected.items():
        torch.testing.assert_close(outputs.features[name], value)
    torch.testing.assert_close(outputs.logits, architecture.head(expected["vector"]))


def test_a_place_may_be_the_architecture_itself_and_removed_hooks_leave_none_behind() -> None:
    network = made().eval()
    reader = FeatureReader(network, {"in": ":input", "out": ""})
    outputs = reader(images())
    torch.testing.assert_close(outputs.features["in"], (images() - 0.4) / 0.2)
    assert torch.equal(outputs.features["out"], outputs.logits)
    assert hooks_of(network) == 2
    reader.remove()
    assert hooks_of(network) == 0


def test_nothing_is_kept_after_a_call_and_no_call_gives_what_another_has_read() -> None:
    network = made().eval()
    reader = FeatureReader(network, {"stem": "stem"})
    first, second = reader(images(1)), reader(images(2))
    assert reader.values == {}
    assert not torch.equal(first.features["stem"], second.features["stem"])
    assert torch.equal(first.features["stem"], reader(images(1)).features["stem"])
    with pytest.raises(RuntimeError):
        reader(torch.rand(2, 3, 8, 8))
    network(images())  # a call that the reader does not make
    assert reader.values == {}


def test_a_network_gives_the_same_with_and_without_reading() -> None:
    plain, read = made().train(), made().train()
    reader = FeatureReader(read, choose("stem", "stages", "pooled", network=read))
    for seed in range(2):
        torch.manual_seed(seed)  # of the dropout
        expected = plain(images(seed))
        torch.manual_seed(seed)
        assert torch.equal(reader(images(seed)).logits, expected)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, read.state_dict()[name]), name


def test_gradients_flow_through_features_to_the_layers_before_them_alone() -> None:
    network = made()
    outputs = FeatureReader(network, {"stage1": "activations.0"})(images())
    torch.autograd.backward(outputs.features["stage1"].square().sum())
    reached = {name for name, parameter in network.architecture.named_parameters() if parameter.grad is not None}
    assert reached == {"stem.weight", "stem.bias", "stages.0.weight", "stages.0.bias"}


def test_a_loss_of_logits_and_features_has_the_gradient_that_autograd_gives_by_hand() -> None:
    network, twin = made().eval(), made().eval()
    outputs = FeatureReader(network, {"stem": "stem"})(images())
    torch.autograd.backward(outputs.logits.sum() + 3 * outputs.features["stem"].square().mean())
    architecture: Any = twin.architecture
    pixels = (images() - 0.4) / 0.2
    torch.autograd.backward(architecture(pixels).sum() + 3 * architecture.stem(pixels).square().mean())
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_and_logits_are_float32_under_autocast(dtype: torch.dtype) -> None:
    network = made().eval()
    reader = FeatureReader(network, {"stem": "stem", "vector": "head:input"})
    wide = reader(images())
    with torch.autocast("cpu", dtype):
        narrow = reader(images())
        assert network(images()).dtype == dtype
    for one, other in ((narrow.logits, wide.logits), *((narrow.features[n], wide.features[n]) for n in wide.features)):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    torch.autograd.backward(narrow.features["stem"].sum())
    assert next(network.parameters()).grad is not None


OVERWRITTEN = "are overwritten in place by the layer that follows"
REMEDY = "choose the point after that layer, or build it with inplace=False"


@pytest.mark.parametrize(
    ("place", "is_overwritten"), [("0", True), ("1:input", True), ("1", False), ("2", True), ("2:input", False)]
)
def test_features_that_the_next_layer_overwrites_are_refused(place: str, is_overwritten: bool) -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 3), nn.ReLU(inplace=True), nn.Flatten()]
    network = made(lambda: nn.Sequential(*layers, nn.Linear(32, 3)))
    for mode in (True, False):
        network.train(mode)
        if is_overwritten:
            message = message_of(FeatureReader(network, {"point": place}), images())
            assert message == f"the features at {place} {OVERWRITTEN}\n  {REMEDY}"
            assert message_of(read_shapes, network, {"point": place}, SHAPE) == message
        else:
            FeatureReader(network, {"point": place})(images())


def test_a_point_that_a_forward_pass_does_not_reach_is_refused() -> None:
    """As a container whose items are called one by one, or a head that only trains."""
    network = made()
    message = message_of(read_shapes, network, choose("stages.1", "activations", network=network), SHAPE)
    assert message.startswith("the features at activations are not computed")


def test_a_point_that_gives_no_tensor_is_refused() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, images: Tensor) -> Tensor:
            rows = images.squeeze(1)
            logits: Tensor = self.head(self.attention(rows, rows, rows)[0].mean(1))
            return logits

    network = made(Attentive)
    message = message_of(read_shapes, network, choose("attention", network=network), SHAPE)
    assert message.startswith("the features at attention are not a tensor")


def test_a_copied_network_reads_nothing_into_the_reader_of_the_first() -> None:
    network = made().eval()
    reader = FeatureReader(network, {"stem": "stem"})
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    expected = reader(images()).features["stem"]
    twin_reader = FeatureReader(twin, {"stem": "stem"})
    assert not torch.equal(twin_reader(images()).features["stem"], expected)
    assert reader.values == {}
    assert torch.equal(reader(images()).features["stem"], expected)
    assert twin_reader.values == {}


def test_shapes_are_those_of_one_sample() -> None:
    network = made()
    expected = {"stem": (2, 8, 8), "stage1": (3, 4, 4), "stage2": (4, 2, 2), "pooled": (4,)}
    assert read_shapes(network, choose("stem", "stages", "pooled", network=network), SHAPE) == expected
    assert hooks_of(network) == 0


@pytest.mark.parametrize("is_training", [True, False])
def test_a_dry_pass_leaves_no_trace(is_training: bool) -> None:
    network = made().train(is_training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    outputs = dry_pass(FeatureReader(network, {"stem": "stem"}), network, SHAPE)
    assert not outputs.features["stem"].requires_grad
    assert all(module.training == is_training for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_of_a_foreign_architecture_the_last_map_of_each_size_is_a_stage() -> None:
    network = made(Foreign)
    points = feature_points(network, SHAPE)
    assert points == {"stage1": "block", "stage2": "down", "pooled": "head:input"}
    assert read_shapes(network, points, SHAPE) == {"stage1": (2, 8, 8), "stage2": (5, 4, 4), "pooled": (7,)}
    assert hooks_of(network) == 0
    assert network.training


def test_a_foreign_architecture_has_the_points_that_can_be_found() -> None:
    flat = made(lambda: TinyClassifier(in_channels=1, image_size=(8, 8), num_classes=3))
    assert feature_points(flat, SHAPE) == {"stage1": "norm", "pooled": "head:input"}
    convolution = made(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert feature_points(convolution, SHAPE) == {"stage1": "0"}


def test_words_choose_points() -> None:
    points = Staged.feature_points
    assert feature_points(made(), SHAPE) == points
    for words, names in (
        ("stages", "stage1 stage2"),
        ("stage-1", "stage2"),
        ("stage-2", "stage1"),
        ("stages_preact", "stage1_preact stage2_preact"),
        ("stage-1_preact", "stage2_preact"),
        ("stage2_preact", "stage2_preact"),
        ("pooled", "pooled"),
        ("unpooled", "unpooled"),
        ("pooled stem", "pooled stem"),
        ("stage2 stages", "stage2 stage1"),
    ):
        assert list(choose(*words.split()).items()) == [(name, points[name]) for name in names.split()], words
    for path in ("stages.0", "norm:input"):
        assert choose(path) == {path: path}


def test_where_a_network_names_no_points_before_activations_the_words_mean_those_after() -> None:
    network = made(Foreign)
    assert choose("stages_preact", network=network) == {"stage1": "block", "stage2": "down"}
    assert choose("stage-2_preact", network=network) == {"stage1": "block"}
    assert choose("unpooled", network=network) == {"pooled": "head:input"}  # what the classifier is given


POINTS = "stem, stage1, stage2, stage1_preact, stage2_preact, unpooled, pooled"


def test_a_word_that_names_nothing_is_refused_with_the_points_that_there_are() -> None:
    for word in ("stage3", "stage-3", "stage-0", "stages_", "stage", "head.weight", "stages.2", "x"):
        assert message_of(choose, word) == (
            f"student has no point {word}\n  choose from {POINTS}, the path of one of its modules, or another network"
        )
    network = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    for word in ("stages", "stage-1", "stages_preact"):
        assert message_of(choose, word, network=network) == (
            f"student has no point {word}\n  choose from pooled, the path of one of its modules, or another network"
        )


@pytest.mark.slow
def test_a_compiled_network_is_read_as_the_plain_one_is() -> None:
    plain, fast = made().eval(), made().eval()
    places = choose("stem", "stages", "stage1_preact", "pooled", network=plain)
    readers = FeatureReader(plain, places), FeatureReader(fast, places, torch.compile(fast))
    for seed in range(3):
        expected, outputs = (reader(images(seed)) for reader in readers)
        torch.testing.assert_close(outputs.logits, expected.logits)
        for name, value in expected.features.items():
            torch.testing.assert_close(outputs.features[name], value)
        for each in (expected, outputs):
            total = each.logits.square().sum() + sum(value.square().mean() for value in each.features.values())
            torch.autograd.backward(total)
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.slow
def test_a_compiled_network_is_read_after_another_of_its_kind_that_is_not() -> None:
    """As the student is, after the baseline."""
    settings = dataclasses.replace(wanted(), compile="default")
    for words in ([], ["stem"], ["pooled"], []):
        network = made().eval()
        places = choose(*words, network=network)
        outputs = FeatureReader(network, places, compiled(network, settings))(images(0))
        for name, value in FeatureReader(network, places)(images(0)).features.items():
            torch.testing.assert_close(outputs.features[name], value)


def test_a_dry_pass_that_fails_leaves_no_hook_and_the_mode_as_it_was() -> None:
    class Refusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no")

    network = made(Refusing).train()
    for attempt in (feature_points, count_macs, lambda *given: read_shapes(given[0], {"head": "head"}, given[1])):
        with pytest.raises(RuntimeError, match="no"):
            attempt(network, SHAPE)
        assert hooks_of(network) == 0
        assert network.training
