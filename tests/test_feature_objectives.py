"""The objectives that compare features: what they sum up, what learns, which pairs they take, what they refuse."""

import copy
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from distill_run.build import Builder
from distill_run.config.compose import config_dir
from distill_run.data.batches import Batch
from distill_run.losses.features import attention_loss, hint_loss, meet
from distill_run.losses.relations import angle_loss, distance_loss, probability_loss, similarity_loss
from distill_run.models.outputs import Outputs
from distill_run.objectives.attention import Attention
from distill_run.objectives.base import FeatureObjective, Pair
from distill_run.objectives.fitnet import Hints
from distill_run.objectives.pkt import ProbabilisticTransfer
from distill_run.objectives.projections import regressor
from distill_run.objectives.rkd import Relations
from distill_run.objectives.sp import SimilarityPreservation
from distill_run.objectives.total import TotalLoss
from distill_run.objectives.vid import VariationalInformation
from helpers import few_examples, message_of, refusal

Shape = tuple[int, ...]

# The defaults of RepDistiller's CIFAR-100 table; other programs ship other weights under the same names.
DEFAULTS: dict[str, dict[str, Any]] = {
    "fitnet": {"weight": 100, "student_points": ["stage2"], "teacher_points": ["stage2"], "last_relu": True},
    "attention": {"weight": 1000, "student_points": ["stages"], "teacher_points": ["stages"], "power": 2},
    "sp": {"weight": 3000, "student_points": ["stage-1"], "teacher_points": ["stage-1"]},
    "rkd": {
        "weight": 1,
        "student_points": ["pooled"],
        "teacher_points": ["pooled"],
        "distance_weight": 25,
        "angle_weight": 50,
    },
    "vid": {"weight": 1, "student_points": ["stages"], "teacher_points": ["stages"]},
    "pkt": {"weight": 30000, "student_points": ["pooled"], "teacher_points": ["pooled"]},
}
CLASSES: dict[str, type[FeatureObjective]] = {
    "fitnet": Hints,
    "attention": Attention,
    "sp": SimilarityPreservation,
    "rkd": Relations,
    "vid": VariationalInformation,
    "pkt": ProbabilisticTransfer,
}
LEARNING = ("fitnet", "vid")
NOT_FOR_ATTENTION = ("vectors", "maps and vectors", "one pixel")
every_mode = pytest.mark.parametrize("mode", DEFAULTS)

# (student, teacher) at two points each.
PAIRS: dict[str, tuple[list[Shape], list[Shape]]] = {
    "equal": ([(3, 8, 8), (5, 4, 4)], [(3, 8, 8), (5, 4, 4)]),
    "other channels": ([(3, 8, 8), (5, 4, 4)], [(4, 8, 8), (9, 4, 4)]),
    "twice as large": ([(3, 8, 8), (5, 4, 4)], [(4, 4, 4), (9, 2, 2)]),
    "half as large": ([(3, 4, 4), (5, 2, 2)], [(4, 8, 8), (9, 4, 4)]),
    "slightly larger": ([(3, 7, 7), (5, 3, 3)], [(4, 5, 5), (9, 2, 2)]),
    "slightly smaller": ([(3, 5, 5), (5, 2, 2)], [(4, 7, 7), (9, 3, 3)]),
    "four times": ([(3, 8, 8), (5, 2, 2)], [(4, 2, 2), (9, 8, 8)]),
    "not square": ([(3, 8, 4), (5, 2, 6)], [(4, 4, 4), (9, 6, 2)]),
    "one pixel": ([(3, 1, 1), (5, 4, 4)], [(4, 2, 2), (9, 1, 1)]),
    "vectors": ([(3,), (5,)], [(4,), (9,)]),
    "maps and vectors": ([(3,), (5, 4, 4)], [(4, 4, 4), (9,)]),
    "tokens": ([(65, 2), (3, 4, 4)], [(4,), (9, 5, 5)]),
}


def pairs_for(mode: str) -> list[str]:
    """The pairs of shapes that a mode can compare."""
    refused = {"attention": (*NOT_FOR_ATTENTION, "tokens"), "fitnet": ("tokens",), "vid": ("tokens",)}.get(mode, ())
    return [pair for pair in PAIRS if pair not in refused]


def make(mode: str, **changes: Any) -> FeatureObjective:
    """The objective of a mode file, with two points of each network."""
    node = yaml.safe_load((config_dir() / "mode" / f"{mode}.yaml").read_text())
    points = {"student_points": ["s1", "s2"], "teacher_points": ["t1", "t2"]}
    objective = Builder().build({**node, **points, **changes}, "mode")
    assert isinstance(objective, FeatureObjective)
    return objective


def fitted(mode: str, shapes: tuple[list[Shape], list[Shape]], seed: int = 0, **changes: Any) -> FeatureObjective:
    objective = make(mode, **changes)
    torch.manual_seed(seed)
    objective.fit_to(Pair(*shapes, torch.arange(8) % 4, 4, seed))
    return objective.train()


def batch_of(num: int) -> Batch:
    return Batch(torch.arange(num), torch.zeros(num, 1, 2, 2), torch.arange(num) % 4, view=0)


def outputs_of(prefix: str, shapes: list[Shape], num: int, seed: int) -> Outputs:
    """Features as after a ReLU, half of them 0, with logits; they are leaves that take a gradient."""
    generator = torch.Generator().manual_seed(seed)
    features = {
        f"{prefix}{place}": torch.randn(num, *shape, generator=generator).relu().requires_grad_()
        for place, shape in enumerate(shapes, start=1)
    }
    return Outputs(torch.randn(num, 4, generator=generator).requires_grad_(), features)


def both_outputs(pair: str, num: int = 6) -> tuple[Outputs, Outputs]:
    student, teacher = PAIRS[pair]
    return outputs_of("s", student, num, seed=1), outputs_of("t", teacher, num, seed=2)


def term_of(objective: FeatureObjective, student: Outputs, teacher: Outputs) -> Tensor:
    return objective.term(batch_of(len(student.logits)), student, teacher)


def test_the_mode_files_have_the_defaults_of_the_literature_and_the_constructors_none() -> None:
    for mode, defaults in DEFAULTS.items():
        text = (config_dir() / "mode" / f"{mode}.yaml").read_text()
        assert yaml.safe_load(text) == {
            "_target_": f"{CLASSES[mode].__module__}.{CLASSES[mode].__qualname__}",
            **defaults,
        }
        assert text.startswith("# ")
        objective = make(mode, weight=7.0)
        assert (objective.needs, objective.task_weight, objective.weight) == ("features", 1.0, 7.0)
        assert (objective.student_points, objective.teacher_points) == (["s1", "s2"], ["t1", "t2"])
        names = {name.split(".")[0] for name, _ in fitted(mode, PAIRS["equal"]).named_parameters()}
        assert names == {"fitnet": {"projections"}, "vid": {"means", "scales"}}.get(mode, set())
        assert make(mode).state_dict() == {}


def pairs_of(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    return list(zip(student.features.values(), teacher.features.values(), strict=True))


def test_each_term_is_the_sum_over_the_points() -> None:
    student, teacher = both_outputs("twice as large")
    (first, second) = pairs_of(student, teacher)
    relations = [3 * distance_loss(*pair) + 5 * angle_loss(*pair) for pair in (first, second)]
    expected = {
        "attention": attention_loss(*first, 3) + attention_loss(*second, 3),
        "sp": similarity_loss(*first) + similarity_loss(*second),
        "pkt": probability_loss(*first) + probability_loss(*second),
        "rkd": relations[0] + relations[1],
    }
    changes: dict[str, dict[str, Any]] = {
        "attention": {"power": 3},
        "rkd": {"distance_weight": 3.0, "angle_weight": 5.0},
    }
    for mode, value in expected.items():
        term = term_of(fitted(mode, PAIRS["twice as large"], **changes.get(mode, {})), student, teacher)
        assert term.shape == ()
        assert term.item() == pytest.approx(value.item(), rel=1e-6), mode


def test_the_term_of_fitnet_is_the_sum_of_the_differences_of_the_projected_features() -> None:
    student, teacher = both_outputs("half as large")
    objective = fitted("fitnet", PAIRS["half as large"])
    assert isinstance(objective, Hints)
    pairs = zip(objective.projections, pairs_of(student, teacher), strict=True)
    expected = sum((projection(ours) - theirs).square().mean().item() for projection, (ours, theirs) in pairs)
    assert term_of(objective, student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_the_term_of_vid_is_a_likelihood_of_the_pooled_features() -> None:
    """Pooled before the convolutions, not after them, where their ReLUs have made another map of it."""
    student, teacher = both_outputs("twice as large")
    objective = fitted("vid", PAIRS["twice as large"])
    assert isinstance(objective, VariationalInformation)
    expected = 0.0
    for mean, scale, (ours, theirs) in zip(objective.means, objective.scales, pairs_of(student, teacher), strict=True):
        variance = scale.exp().log1p().view(-1, 1, 1) + 1e-5
        num, channels, height, width = ours.shape
        pooled = ours.view(num, channels, height // 2, 2, width // 2, 2).mean((3, 5))
        expected += ((mean(pooled) - theirs) ** 2 / variance + variance.log()).mean().item() / 2
    assert term_of(objective, student, teacher).item() == pytest.approx(expected, rel=1e-5)


@every_mode
def test_training_lowers_the_term_and_reaches_all_that_should_learn(mode: str) -> None:
    for pair in pairs_for(mode):
        student, teacher = both_outputs(pair)
        loss = TotalLoss({"distillation": fitted(mode, PAIRS[pair], weight=1.0)}, label_smoothing=0.0)
        learning = {**dict(loss.named_parameters()), **student.features, "logits": student.logits}
        before = {name: value.detach().clone() for name, value in learning.items()}
        optimizer = torch.optim.Adam(learning.values(), lr=0.01)
        terms = []
        for _ in range(10):
            total, parts = loss.losses(batch_of(6), student, teacher)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(total)
            assert all(value.grad is not None and value.grad.isfinite().all() for value in learning.values()), pair
            optimizer.step()
            terms.append(parts["distillation"].item())
        assert terms[-1] < terms[0], pair
        assert [name for name, value in learning.items() if torch.equal(value, before[name])] == [], pair
        assert all(value.grad is None for value in (*teacher.features.values(), teacher.logits)), pair


@every_mode
def test_a_batch_of_one_image_and_dead_features_have_a_finite_term_and_gradient(mode: str) -> None:
    for pair in pairs_for(mode):
        student, teacher = both_outputs(pair, num=1)
        objective = fitted(mode, PAIRS[pair])
        term = term_of(objective, student, teacher)
        torch.autograd.backward(term)
        assert torch.isfinite(term), pair
        gradients = [value.grad for value in (*objective.parameters(), *student.features.values())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients), pair
    student, teacher = both_outputs("equal")
    dead = {name: torch.zeros_like(value).requires_grad_() for name, value in student.features.items()}
    torch.autograd.backward(term_of(fitted(mode, PAIRS["equal"]), Outputs(student.logits, dead), teacher))
    assert all(value.grad is not None and value.grad.abs().max() < 10 for value in dead.values())


def test_a_student_that_equals_its_teacher_has_no_loss() -> None:
    _, teacher = both_outputs("equal")
    student = Outputs(teacher.logits, {f"s{name[1:]}": value for name, value in teacher.features.items()})
    for mode in DEFAULTS.keys() - set(LEARNING):
        assert term_of(fitted(mode, PAIRS["equal"]), student, teacher).item() == 0, mode


@pytest.mark.parametrize("mode", [*LEARNING, "crd", "review_kd", "simkd"])
def test_a_second_fit_replaces_the_first(mode: str) -> None:
    fresh, again = (
        Builder().build(yaml.safe_load((config_dir() / "mode" / f"{mode}.yaml").read_text()), "mode") for _ in range(2)
    )
    targets = torch.arange(8) % 4
    again.fit_to(Pair([(2, 8, 8)], [(3, 8, 8)], targets, 4, 1))
    for objective in (fresh, again):
        torch.manual_seed(2)
        objective.fit_to(Pair([(3, 4, 4)], [(5, 4, 4)], targets, 4, 2))
    expected, found = fresh.state_dict(), again.state_dict()
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    for module in again.to("meta").modules():  # everything goes where the objective goes
        assert not any(isinstance(value, Tensor) for value in vars(module).values())
    assert {each.device.type for each in (*again.parameters(), *again.buffers())} <= {"meta"}


def test_the_variances_of_vid_begin_at_5_are_learned_and_are_kept() -> None:
    """In another program they are a plain list: never optimized, never saved, never moved to the device."""
    objective = fitted("vid", PAIRS["other channels"])
    scales = {name: value for name, value in objective.named_parameters() if name.startswith("scales.")}
    assert [value.shape for value in scales.values()] == [(4,), (9,)]
    for scale in scales.values():
        assert (nn.functional.softplus(scale) + 1e-5).tolist() == pytest.approx([5.0] * len(scale), rel=1e-6)
    assert scales.keys() <= objective.state_dict().keys()
    assert all(value.dtype == torch.float64 for value in copy.deepcopy(objective).double().parameters())
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in scales.items()}
    torch.autograd.backward(term_of(objective, *both_outputs("other channels")))
    optimizer.step()
    assert all(bool((value != before[name]).all()) for name, value in scales.items())


def test_the_mean_of_vid_is_three_convolutions_of_one_pixel() -> None:
    objective = fitted("vid", PAIRS["other channels"])
    assert isinstance(objective, VariationalInformation)
    layers = [module for module in objective.means[1].modules() if isinstance(module, nn.Conv2d)]
    assert [(each.in_channels, each.out_channels, each.kernel_size) for each in layers] == [
        (5, 9, (1, 1)),
        (9, 9, (1, 1)),
        (9, 9, (1, 1)),
    ]
    negative = objective.means[1](torch.randn(8, 5, 4, 4))
    assert bool((negative < 0).any())  # no ReLU comes last: the teacher's features may be negative


def test_the_projection_of_fitnet_is_that_of_the_literature() -> None:
    for student, teacher, layer, kernel, num_params in (
        ((3, 8, 8), (5, 4, 4), nn.Conv2d, (3, 3), 3 * 5 * 9 + 10),
        ((3, 4, 4), (5, 8, 8), nn.ConvTranspose2d, (4, 4), 3 * 5 * 16 + 10),
        ((3, 7, 5), (5, 4, 4), nn.Conv2d, (4, 2), 3 * 5 * 8 + 10),
        ((3, 4, 4), (5, 4, 4), nn.Conv2d, (1, 1), 3 * 5 + 10),
        ((3, 9, 9), (5, 4, 4), nn.Conv2d, (1, 1), 3 * 5 + 10),  # pooled first
        ((3, 4, 4), (5, 5, 5), nn.Conv2d, (1, 1), 3 * 5 + 10),  # the teacher's is pooled
        ((3, 1, 1), (5, 1, 1), nn.Conv2d, (1, 1), 3 * 5 + 5),  # a linear layer with a bias
    ):
        projection = regressor(student, teacher, last_relu=True)
        convolution = next(each for each in projection if isinstance(each, nn.Conv2d | nn.ConvTranspose2d))
        assert (type(convolution), convolution.kernel_size) == (layer, kernel)
        assert sum(parameter.numel() for parameter in projection.parameters()) == num_params


sides = st.integers(1, 12)


@few_examples
@given(student=st.tuples(sides, sides), teacher=st.tuples(sides, sides))
def test_any_two_sizes_make_a_pair(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    projected = regressor((2, *student), (3, *teacher), last_relu=False)(torch.rand(1, 2, *student))
    assert projected.shape[:2] == (1, 3)
    is_made_larger = teacher == (2 * student[0], 2 * student[1])
    for made, before, after in zip(projected.shape[2:], student, teacher, strict=True):
        assert made == (after if is_made_larger else min(before, after))
    wanted = torch.rand(1, 3, *teacher)
    assert [each.shape for each in meet(projected, wanted)] == [projected.shape] * 2


def test_a_projection_of_vectors_is_a_linear_layer() -> None:
    objective = fitted("fitnet", PAIRS["vectors"], last_relu=False)
    assert isinstance(objective, Hints)
    (layer,) = objective.projections[0].children()
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    vectors = torch.randn(6, 3)
    expected = vectors @ layer.weight.view(4, 3).T + layer.bias
    torch.testing.assert_close(layer(vectors[:, :, None, None]).flatten(1), expected)


@pytest.mark.parametrize("last_relu", [True, False])
def test_only_without_the_last_relu_negative_features_can_be_reached(last_relu: bool) -> None:
    """A teacher that is read before its activation, or at a linear bottleneck, has them."""
    objective = fitted("fitnet", ([(3, 4, 4), (3,)], [(3, 4, 4), (3,)]), last_relu=last_relu)
    assert isinstance(objective, Hints)
    for projection, shape in zip(objective.projections, ((9, 3, 4, 4), (9, 3, 1, 1)), strict=True):
        assert bool((projection(torch.randn(shape)) >= 0).all()) == last_relu
    wanted = -torch.ones(9, 3, 4, 4)
    assert hint_loss(objective.projections[0](torch.randn(9, 3, 4, 4)), wanted).item() >= (1 if last_relu else 0)


def test_points_of_a_shape_that_cannot_be_compared_are_refused() -> None:
    for place, network in enumerate(("student", "teacher")):
        shapes: tuple[list[Shape], list[Shape]] = ([(3, 4, 4), (3, 4, 4)], [(3, 4, 4), (3, 4, 4)])
        shapes[place][1] = (64,)
        assert message_of(fitted, "attention", shapes) == (
            f"the {network}'s features are of shape (64,), but attention maps need (C, H, W)\n"
            f"  choose maps in mode.{network}_points, as in [stages]"
        )
        shapes[place][1] = (65, 192)  # a transformer's tokens
        for mode in (*LEARNING, "review_kd"):
            assert message_of(fitted, mode, shapes) == (
                f"the {network}'s features are of shape (65, 192), neither a vector nor a map\n"
                f"  choose other points in mode.{network}_points"
            )


POINTS = "a list of points of a network, as in [stages] or [pooled]"


def test_each_objective_refuses_what_it_cannot_use() -> None:
    refused: list[tuple[str, str, object, str]] = [
        ("attention", "power", 0.5, "a whole number of at least 1"),
        ("attention", "power", 0, "a whole number of at least 1"),
        ("fitnet", "last_relu", 1, "true or false"),
        ("rkd", "distance_weight", -1, "a number of at least 0"),
        ("rkd", "angle_weight", None, "a number of at least 0"),
    ]
    refused += [
        ("crd", "embedding_size", 0, "a whole number of at least 1"),
        ("crd", "num_negatives", 2.5, "a whole number of at least 1"),
        ("crd", "temperature", 0, "a number above 0"),
        ("crd", "momentum", 1.0, "a number from 0 to below 1"),
        ("review_kd", "mid_channels", 0, "a whole number of at least 1"),
        ("review_kd", "warmup_epochs", -1, "a number of at least 0"),
    ]
    for mode in (*DEFAULTS, "crd", "review_kd"):
        refused += [(mode, "weight", -1, "a number of at least 0"), (mode, "student_points", "stage2", POINTS)]
        refused += [(mode, "teacher_points", value, POINTS) for value in ([], [2])]
    for mode, name, value, words in refused:
        assert message_of(make, mode, **{name: value}) == refusal(f"mode.{name}", value, words)


@pytest.mark.parametrize("mode", DEFAULTS)
def test_the_gradient_of_the_whole_term_is_the_slope(mode: str) -> None:
    """Of the student's features and of all that learns beside them; batch norm and ReLU included."""
    pair = "twice as large"
    objective = fitted(mode, PAIRS[pair]).double()
    student, teacher = both_outputs(pair, num=3)
    theirs = Outputs(teacher.logits, {name: value.double() for name, value in teacher.features.items()})
    generator = torch.Generator().manual_seed(7)  # no zeros, where the slope of a ReLU or of |x| is not unique
    ours = [
        torch.randn(value.shape, generator=generator).double().requires_grad_() for value in student.features.values()
    ]

    def term(*values: Tensor) -> Tensor:
        features = dict(zip(student.features, values[:2], strict=True))
        return term_of(objective, Outputs(student.logits, features), theirs)

    assert torch.autograd.gradcheck(term, (*ours, *objective.parameters()))
