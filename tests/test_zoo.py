"""The networks of the literature: what they cost, to the last parameter, and where their features are read.

Sizes, operations and shapes are found on torch's meta device, which computes shapes alone.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import batch_norm, relu

from distill_run.build import Builder
from distill_run.config.compose import config_dir, option_names
from distill_run.data.source import ImageShape
from distill_run.models.features import FeatureReader, choose_points, feature_points, read_shapes
from distill_run.models.folding import fold_batch_norm
from distill_run.models.network import Network, build_network, count_macs, count_params
from distill_run.models.shufflenet import Shuffle
from distill_run.models.vit import Attention
from helpers import message_of

# Parameters with 100 and with 10 classes, and 10^6 multiply-accumulates of a 32x32 image with 100 classes, as measured
# in RepDistiller and mdistiller. They count no bias and no batch norm, shortcuts they do; neither says ResNet18's.
COSTS = {
    "resnet8": (83_892, 78_042, 12.51),
    "resnet14": (181_108, 175_258, 26.66),
    "resnet20": (278_324, 272_474, 40.82),
    "resnet32": (472_756, 466_906, 69.13),
    "resnet44": (667_188, 661_338, 97.44),
    "resnet56": (861_620, 855_770, 125.75),
    "resnet110": (1_736_564, 1_730_714, 253.16),
    "resnet8x4": (1_233_540, 1_210_410, 177.07),
    "resnet32x4": (7_433_860, 7_410_730, 1083.04),
    "resnet50": (23_705_252, 23_520_842, 1298.01),
    "resnet18": (11_220_132, 11_220_132 - 90 * 513, None),
    "wrn_16_1": (180_916, 175_066, 26.66),
    "wrn_16_2": (703_284, 691_674, 101.12),
    "wrn_40_1": (569_780, 563_930, 83.29),
    "wrn_40_2": (2_255_156, 2_243_546, 327.61),
    "vgg8": (3_965_028, 3_918_858, 96.19),
    "vgg11": (9_277_284, 9_231_114, 209.44),
    "vgg13": (9_462_180, 9_416_010, 284.94),
    "vgg16": (14_774_436, 14_728_266, 398.18),
    "vgg19": (20_086_692, 20_040_522, 511.43),
    "mobilenet_v2": (812_836, 697_546, 6.52),
    "shufflenet_v1": (949_258, 862_768, 38.69),
    "shufflenet_v2": (1_355_528, 1_263_278, 44.50),
}

RESNET = [(16, 32), (16, 32), (32, 16), (64, 8)]
RESNET_X4 = [(32, 32), (64, 32), (128, 16), (256, 8)]
VGG = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]
# (channels, side) of a 32x32 image's maps at the stem and after each stage, then those of the last map.
MAPS = {
    **{f"resnet{depth}": (RESNET, (64, 8)) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": (RESNET_X4, (256, 8)),
    "resnet32x4": (RESNET_X4, (256, 8)),
    "resnet50": ([(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)], (2048, 4)),
    "resnet18": ([(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)], (512, 4)),
    "wrn_16_1": (RESNET, (64, 8)),
    "wrn_40_1": (RESNET, (64, 8)),
    "wrn_16_2": ([(16, 32), (32, 32), (64, 16), (128, 8)], (128, 8)),
    "wrn_40_2": ([(16, 32), (32, 32), (64, 16), (128, 8)], (128, 8)),
    **{f"vgg{layers}": (VGG, (512, 4)) for layers in (8, 11, 13, 16, 19)},
    "mobilenet_v2": ([(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)], (1280, 2)),
    "shufflenet_v1": ([(24, 32), (240, 16), (480, 8), (960, 4)], (960, 4)),
    "shufflenet_v2": ([(24, 32), (116, 16), (232, 8), (464, 4)], (1024, 4)),
}
SMALL = ["resnet14", "resnet8x4", "resnet50", "wrn_16_2", "vgg8", "vgg11", "mobilenet_v2", "shufflenet_v1"]
SMALL += ["shufflenet_v2", "vit_tiny"]
OF_CHANCE = ("cnn_", "mlp", "torchvision", "timm", "vit_")  # not of the tables


def node_of(name: str, **changes: object) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert node.keys() >= changes.keys()
    return {**node, **changes}


def build(
    name: str, num_classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3, **changes: object
) -> Network:
    shape = ImageShape(channels, size, num_classes)
    mean, std = [0.5] * channels, [0.25] * channels
    return build_network(node_of(name, **changes), "student", shape, mean, std, 0, Builder())


@cache
def outline(name: str, num_classes: int = 100, size: tuple[int, int] = (32, 32), channels: int = 3) -> Network:
    """A network that computes shapes only."""
    with torch.device("meta"):
        return build(name, num_classes, size, channels)


def shuffled(network: Network) -> Network:
    """The network with batch norm that does something: as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network


def images_of(num: int, size: tuple[int, int] = (16, 16), channels: int = 3) -> Tensor:
    return torch.rand(num, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=SMALL)
def read(request: pytest.FixtureRequest) -> Iterator[tuple[str, Network, dict[str, Tensor]]]:
    """A network with all of its features, in eval mode, of two images of 16x16."""
    network = shuffled(build(request.param, size=(16, 16))).eval()
    points = feature_points(network, ImageShape(3, (16, 16), 10))
    with torch.no_grad():
        yield request.param, network, dict(FeatureReader(network, points)(images_of(2)).features)


def test_the_tables_have_every_network_of_the_literature() -> None:
    named = {name for name in option_names("model") if not name.startswith(OF_CHANCE)}
    assert named == COSTS.keys() == MAPS.keys()


@pytest.mark.parametrize("name", COSTS)
def test_a_network_has_the_costs_and_the_shapes_of_the_literature(name: str) -> None:
    *params, macs = COSTS[name]
    network, shape = outline(name), ImageShape(3, (32, 32), 100)
    assert [count_params(network), count_params(outline(name, 10))] == params
    if macs is None:  # the stem, then four blocks a resolution; each new one has half the pixels, twice the channels
        first_in_half = 16 * 16 * 128 * 64 * (9 + 1) + 16 * 16 * 9 * 128 * 128 * 3  # with the shortcut's 1x1
        macs = (32 * 32 * 27 * 64 + 32 * 32 * 9 * 64 * 64 * 4 + 3 * first_in_half + 512 * 100) / 1e6
    assert count_macs(network, shape) / 1e6 == pytest.approx(macs, abs=0.00501)
    maps, last = MAPS[name]
    sizes = [(channels, side, side) for channels, side in maps]
    stages = {f"stage{number}": size for number, size in enumerate(sizes[1:], start=1)}
    preacts = {} if name == "mobilenet_v2" else {f"{stage}_preact": size for stage, size in stages.items()}
    assert read_shapes(network, feature_points(network, shape), shape) == {
        **{"stem": sizes[0], **stages, **preacts},
        **{"unpooled": (last[0], last[1], last[1]), "pooled": (last[0],)},
    }


@pytest.mark.slow
def test_a_network_takes_images_of_any_size() -> None:
    for name, size in product(["resnet8", *SMALL[1:-1]], [(1, 1), (8, 8), (28, 28), (33, 47), (64, 64)]):
        network, shape = outline(name, 7, size, 1), ImageShape(1, size, 7)
        shapes = read_shapes(network, {**feature_points(network, shape), "logits": ""}, shape)
        assert shapes["logits"] == (7,), (name, size)
        assert shapes["unpooled"][:1] == shapes["pooled"], (name, size)
        assert all(side >= 1 for each in shapes.values() for side in each), (name, size)


def test_vgg_pools_once_more_from_64_pixels_on() -> None:
    for side, last in ((32, 4), (63, 8), (64, 4)):
        network, shape = outline("vgg8", size=(side, side)), ImageShape(3, (side, side), 100)
        points = feature_points(network, shape)
        assert read_shapes(network, points, shape)["unpooled"] == (512, last, last)


def test_the_mean_of_the_last_map_is_what_the_classifier_is_given(read: tuple[str, Network, dict[str, Tensor]]) -> None:
    _, network, features = read
    torch.testing.assert_close(features["unpooled"].mean((2, 3)), features["pooled"])
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    logits = FeatureReader(network, {})(images_of(2)).logits
    torch.testing.assert_close(head(features["pooled"]), logits)


def test_a_stage_is_what_its_activation_makes_of_what_comes_before(
    read: tuple[str, Network, dict[str, Tensor]],
) -> None:
    """ShuffleNetV2 shuffles two halves afterwards; the stages of wide residual networks are not yet activated."""
    name, network, features = read
    stages = [point for point in features if point.startswith("stage") and not point.endswith("preact")]
    assert len(stages) >= 3
    for place, stage in enumerate(stages):
        if f"{stage}_preact" not in features:
            assert name in ("mobilenet_v2", "vit_tiny")  # whose stages no activation follows
            assert bool((features[stage] < 0).any())
            continue
        before, after = features[f"{stage}_preact"], features[stage]
        assert bool((before < 0).any())
        if name.startswith("wrn"):
            norm = network.architecture.get_submodule(f"stages.{place + 1}.0.norm" if place < 2 else "norm")
            assert isinstance(norm, nn.BatchNorm2d)
            expected = batch_norm(after, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            torch.testing.assert_close(before, expected)
            continue
        active = relu(before)
        if name == "shufflenet_v2":
            active = torch.stack(active.chunk(2, dim=1), dim=2).flatten(1, 2)
        assert torch.equal(active, after)


def test_the_last_map_of_a_wide_residual_network_is_activated() -> None:
    network = shuffled(build("wrn_16_1", size=(8, 8))).eval()
    points = {"before": "norm", "unpooled": "activation"}
    features = FeatureReader(network, points)(images_of(2, (8, 8))).features
    assert torch.equal(relu(features["before"]), features["unpooled"])


@pytest.mark.parametrize("name", ["mobilenet_v2", "vit_tiny"])
def test_stages_that_no_activation_follows_are_their_own_preactivations(name: str) -> None:
    network = outline(name)
    points = feature_points(network, ImageShape(3, (32, 32), 10))
    before = choose_points(["stages_preact"], points, network, "student")
    assert before == choose_points(["stages"], points, network, "student")


@pytest.mark.parametrize("name", [*SMALL, "cnn_small"])
def test_reading_features_advances_batch_norm_once_and_folding_it_changes_no_logit(name: str) -> None:
    """Only what a wide residual network activates before its convolutions stays a batch norm: a block each, and one."""
    network, images = build(name, size=(16, 16)).train(), images_of(2)
    FeatureReader(network, feature_points(network, ImageShape(3, (16, 16), 10)))(images)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked or 0) for norm in norms} <= {1}
    expected = shuffled(network).eval()(images)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(network(images), expected)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert left == (6 + 1 if name == "wrn_16_2" else 0)


def fade(network: Network, branch: str) -> None:
    """Let the last norm of a residual branch give 0."""
    norm = [m for m in network.architecture.get_submodule(branch).modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)


@pytest.mark.parametrize(
    ("name", "given", "stage", "blocks"),
    [
        ("resnet14", "stem", "stages.0", (0, 1)),
        ("shufflenet_v1", "stages.1.0", "stages.1", range(1, 8)),
        ("mobilenet_v2", "stages.1.0", "stages.1", (1, 2)),
    ],
)
def test_a_block_adds_to_what_it_is_given(name: str, given: str, stage: str, blocks: Sequence[int]) -> None:
    """What these blocks are given comes out of the stage, when their branches give 0."""
    network = shuffled(build(name, size=(16, 16))).eval()
    for block in blocks:
        fade(network, f"{stage}.{block}.residual")
    features = FeatureReader(network, {"given": given, "result": stage})(images_of(2)).features
    assert torch.equal(features["given"], features["result"])


def test_a_wide_block_activates_what_its_shortcut_is_given_where_the_shape_changes() -> None:
    network = shuffled(build("wrn_16_2", size=(8, 8))).eval()
    for place in ("stages.0.0", "stages.0.1"):
        *_, convolution = network.architecture.get_submodule(f"{place}.residual").children()
        assert isinstance(convolution, nn.Conv2d)
        nn.init.zeros_(convolution.weight)
    points = {"x": "stages.0.0:input", "active": "stages.0.0.activation", "y": "stages.0.0", "z": "stages.0.1"}
    features = FeatureReader(network, points)(images_of(2, (8, 8))).features
    shortcut = network.architecture.get_submodule("stages.0.0.shortcut")
    torch.testing.assert_close(features["y"], shortcut(features["active"]))
    assert torch.equal(features["z"], features["y"])


def test_half_of_the_channels_pass_a_shufflenet_block_unchanged() -> None:
    network = shuffled(build("shufflenet_v2", size=(16, 16))).eval()
    points = {"given": "stages.0.1:input", "result": "stages.0.1"}
    features = FeatureReader(network, points)(images_of(2)).features
    assert torch.equal(features["result"][:, ::2], features["given"][:, :58])
    assert not torch.equal(features["result"][:, 1::2], features["given"][:, 58:])


def test_a_shuffle_deals_the_channels_of_each_group_out() -> None:
    maps = torch.arange(6.0).view(1, 6, 1, 1)
    assert Shuffle(2)(maps).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert Shuffle(3)(maps).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("name", ["resnet14", "wrn_16_2", "vgg8", "mobilenet_v2"])
def test_kernels_begin_with_the_variance_of_their_outputs(name: str) -> None:
    """N(0, 2 / (kernel area * output channels)); the sum of n squares over their variance is n, give or take."""
    for module in build(name).modules():
        if isinstance(module, nn.Conv2d):
            variance = 2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels)
            count = module.weight.numel()
            assert abs(float(module.weight.square().sum()) / variance / count - 1) < 5 * (2 / count) ** 0.5
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "mobilenet_v2"])
def test_classifiers_of_vgg_and_mobilenet_begin_small(name: str) -> None:
    head = [module for module in build(name, 100).modules() if isinstance(module, nn.Linear)][-1]
    assert float(head.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()


VIT = {"patch_size": 4, "width": 128, "blocks": [2, 2, 2], "heads": 4, "mlp_factor": 2, "dropout": 0.0}


def test_the_parameters_of_the_vision_transformer_by_hand() -> None:
    assert node_of("vit_tiny").items() >= VIT.items()
    patches = (4 * 4 * 3 * 128 + 128) + 8 * 8 * 128
    attention = (128 * 384 + 384) + (128 * 128 + 128)
    mlp = (128 * 256 + 256) + (256 * 128 + 128)
    block = (2 * 128 + attention) + (2 * 128 + mlp)
    assert count_params(outline("vit_tiny", 100)) == patches + 6 * block + 2 * 128 + (128 * 100 + 100) == 822_500


def test_the_operations_of_the_vision_transformer_by_hand() -> None:
    """64 tokens; each of the four heads multiplies 64x32 by 32x64, and 64x64 by 64x32."""
    linear = 64 * (4 * 4 * 3 * 128 + 6 * (128 * 384 + 128 * 128 + 2 * 128 * 256)) + 128 * 100
    attention = 6 * 4 * 2 * 64 * 64 * 32
    with sdpa_kernel(SDPBackend.MATH):  # fused attention is one operation, which the CPU's counter does not know
        assert count_macs(build("vit_tiny", 100), ImageShape(3, (32, 32), 100)) == linear + attention == 57_029_120


def test_the_stages_of_the_vision_transformer_are_maps_of_its_tokens() -> None:
    network, shape = outline("vit_tiny", size=(16, 24), channels=1), ImageShape(1, (16, 24), 100)
    shapes = read_shapes(network, feature_points(network, shape), shape)
    maps = dict.fromkeys(("stem", "stage1", "stage2", "stage3", "unpooled"), (128, 4, 6))
    assert shapes == {**maps, "pooled": (128,)}


def test_a_token_of_the_stem_is_a_projected_patch_and_its_position() -> None:
    network = build("vit_tiny", size=(8, 12))
    stem = network.architecture.stem
    images = images_of(1, (8, 12))
    maps = stem(images)  # type: ignore[operator]
    patch = images[0, :, 4:8, 8:12].flatten()
    projection = stem.projection  # type: ignore[union-attr]
    expected = projection.weight.flatten(1) @ patch + projection.bias + stem.positions[:, 1, 2]  # type: ignore[index, operator, union-attr]
    torch.testing.assert_close(maps[0, :, 1, 2], expected)


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.queries_keys_values.weight)
    theirs.in_proj_bias.data.copy_(ours.queries_keys_values.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens, tokens, tokens)[0])


def test_a_vision_transformer_drops_nothing_unless_asked() -> None:
    images = images_of(2, (8, 8))
    calm, dropping = build("vit_tiny", size=(8, 8)), build("vit_tiny", size=(8, 8), dropout=0.5)
    assert torch.equal(calm.train()(images), calm.eval()(images))
    assert torch.equal(dropping.eval()(images), calm.eval()(images))
    assert not torch.allclose(dropping.train()(images), calm(images))


def test_a_plain_convolutional_network_names_its_points() -> None:
    network, shape = build("cnn_small", size=(16, 16)).eval(), ImageShape(3, (16, 16), 10)
    points = feature_points(network, shape)
    stages = {"stage1": (4, 8, 8), "stage2": (8, 4, 4), "stage3": (8, 2, 2)}
    preacts = {f"{stage}_preact": size for stage, size in stages.items()}
    assert read_shapes(network, points, shape) == {**stages, **preacts, "pooled": (32,)}
    features = FeatureReader(network, points)(images_of(2)).features
    assert all(torch.equal(relu(features[f"{stage}_preact"]), features[stage]) for stage in stages)


def test_a_network_refuses_what_it_cannot_be_built_of() -> None:
    for name, key, value, words in (
        ("wrn_16_2", "depth", 18, "6 x blocks of a stage + 4, as in 16, 22, 28, 34 or 40"),
        ("resnet8", "blocks", [1, 1], "3 numbers, one for each stage of `widths`"),
        ("resnet8", "blocks", [1, 1, 1, 1], "3 numbers, one for each stage of `widths`"),
        ("vit_tiny", "patch_size", 5, "a divisor of the sides of the images, which are 32x32"),
        ("vit_tiny", "heads", 3, "a divisor of width=128"),
    ):
        assert message_of(build, name, **{key: value}) == f"student.{key}={value} is not accepted\n  write {words}"
