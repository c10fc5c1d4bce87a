"""The total loss: terms add up by their weights, each is given what it asks for, and what they learn is the loss's."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill_run.build import Builder
from distill_run.data.batches import Batch
from distill_run.models.outputs import Outputs
from distill_run.objectives.assemble import build_objectives
from distill_run.objectives.base import Needs, Objective
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.soft import SoftTargets
from distill_run.objectives.total import TotalLoss
from helpers import SOFT, message_of, numpy_cross_entropy, numpy_log_softmax, some_logits

TARGETS = torch.tensor([0, 3, 3, 1])
STUDENT, TEACHER = some_logits(0, 4, 5), some_logits(1, 4, 5)
TASK = numpy_cross_entropy(STUDENT, TARGETS.numpy())


class Term(Objective):
    """A term of a given value, which remembers what it was given."""

    def __init__(self, value: float = 1.0, needs: Needs = "logits", **attributes: Any) -> None:
        super().__init__()
        self.value = value
        self.needs = needs
        for name, given in attributes.items():
            setattr(self, name, given)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def term(self, batch: Batch, student: Outputs, teacher: Outputs | None) -> Tensor:
        self.given = student, teacher
        return self.value * self.scale


def batch(epoch: int = 1) -> Batch:
    return Batch(torch.arange(4), torch.zeros(4, 1, 2, 2), TARGETS, view=0, epoch=epoch)


def outputs() -> tuple[Outputs, Outputs]:
    features = {"stage1": torch.ones(4, 2)}
    return Outputs(torch.from_numpy(STUDENT), features), Outputs(torch.from_numpy(TEACHER), features)


def loss_of(total: TotalLoss, epoch: int = 1) -> float:
    return total.losses(batch(epoch), *outputs())[0].item()


def test_terms_add_up_by_their_weights_and_the_first_has_the_weight_of_the_cross_entropy() -> None:
    terms = {
        "distillation": Term(10.0, weight=0.5, task_weight=0.25),
        "second": Term(100.0, weight=2.0, task_weight=7.0),  # whose cross-entropy is not added once more
        "third": Term(1000.0, weight=3.0),
    }
    loss, parts = TotalLoss(terms, 0.0).losses(batch(), *outputs())
    assert loss.item() == pytest.approx(0.25 * TASK + 5 + 200 + 3000)
    assert loss.shape == ()
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"cross_entropy": TASK, "distillation": 10, "second": 100, "third": 1000}
    )
    assert list(parts) == ["cross_entropy", "distillation", "second", "third"]


def test_weight_0_leaves_a_term_out_whatever_its_value() -> None:
    for value in (math.nan, math.inf):
        terms = {"distillation": Term(2.0), "out": Term(value, weight=0.0)}
        loss, parts = TotalLoss(terms, 0.0).losses(batch(), *outputs())
        assert loss.item() == pytest.approx(TASK + 2)
        assert not parts["out"].isfinite()  # the record has it all the same
        torch.autograd.backward(loss)
        assert terms["out"].scale.grad is None
    student = Outputs(torch.full((4, 5), math.nan))  # whose cross-entropy is nan
    loss, _ = TotalLoss({"distillation": Term(2.0, task_weight=0.0)}, 0.0).losses(batch(), student, outputs()[1])
    assert loss.item() == 2.0


def test_a_term_rises_over_its_first_epochs_and_the_others_do_not() -> None:
    terms = {"distillation": Term(1.0), "slow": Term(8.0, weight=2.0, warmup_epochs=4)}
    rises = [loss_of(TotalLoss(terms, 0.0), epoch) - TASK - 1 for epoch in (1, 2, 3, 4, 5, 100)]
    assert rises == pytest.approx([4, 8, 12, 16, 16, 16])
    for epochs, factor in ((0, 1.0), (0.5, 1.0), (1, 1.0), (1.5, 1 / 1.5)):
        loss = loss_of(TotalLoss({"distillation": Term(6.0, warmup_epochs=epochs)}, 0.0))
        assert loss == pytest.approx(TASK + 6 * factor), epochs


def test_the_most_that_a_term_asks_of_the_teacher_is_asked() -> None:
    cases: tuple[tuple[list[Needs], str], ...] = (
        (["nothing"], "nothing"),
        (["nothing", "logits"], "logits"),
        (["logits", "nothing"], "logits"),
        (["logits", "features", "nothing"], "features"),
    )
    for needs, most in cases:
        terms: dict[str, Objective] = {f"term{number}": Term(needs=each) for number, each in enumerate(needs)}
        assert TotalLoss(terms, 0.0).needs == most
        TotalLoss(terms, 0.0).losses(batch(), *(given := outputs()))
        assert all(isinstance(term, Term) and term.given == given for term in terms.values())


def test_what_a_term_learns_and_keeps_is_the_losss() -> None:
    terms: dict[str, Objective] = {"distillation": Term(), "other": Term()}
    total = TotalLoss(terms, 0.0)
    assert {id(each) for each in total.parameters()} == {id(term.scale) for term in terms.values()}
    assert total.state_dict().keys() == {
        f"objectives.{name}.{tensor}" for name in terms for tensor in ("scale", "seen")
    }
    assert total.terms == terms
    total.eval()
    assert not any(term.training for term in terms.values())


def test_gradients_are_those_of_the_weighted_sum() -> None:
    terms = {"distillation": Term(2.0, weight=0.5), "other": Term(3.0, weight=4.0, warmup_epochs=2)}
    student = torch.from_numpy(STUDENT).requires_grad_()
    loss, _ = TotalLoss(terms, 0.0).losses(batch(), Outputs(student), outputs()[1])
    torch.autograd.backward(loss)
    assert [term.scale.grad.item() for term in terms.values() if term.scale.grad is not None] == [1.0, 6.0]
    by_hand = (student.detach().softmax(1) - nn.functional.one_hot(TARGETS, 5)) / 4
    assert student.grad is not None
    torch.testing.assert_close(student.grad, by_hand)


ALONE = {"_target_": "distill_run.objectives.none.CrossEntropy", "label_smoothing": 0.0}


def test_the_mode_and_what_is_added_to_it_are_built_by_the_names_of_their_parts() -> None:
    also = {"soft": {**SOFT, "temperature": 2.0}, "none": ALONE}
    objectives = build_objectives({**SOFT, "also": also}, Builder())
    assert list(objectives) == ["distillation", "soft", "none"]
    main, second = objectives["distillation"], objectives["soft"]
    assert isinstance(main, SoftTargets)
    assert isinstance(second, SoftTargets)
    assert (main.temperature, second.temperature) == (4.0, 2.0)
    assert list(build_objectives(ALONE, Builder())) == ["cross_entropy"]


def test_the_mistakes_of_the_mode_and_of_what_is_added_are_told_together_with_their_keys() -> None:
    also = {"first": {**SOFT, "alpha": 2}, "second": {**SOFT, "temprature": 1}}
    assert message_of(build_objectives, {**SOFT, "temperature": 0, "also": also}, Builder()).startswith(
        "mode.temperature=0 is not accepted\n  write a number above 0\n"
        "mode.also.first.alpha=2 is not accepted\n  write a number from 0 to 1\n"
        "mode.also.second.temprature is not a key of the configuration\n  did you mean mode.also.second.temperature"
    )


def test_a_loss_whose_weights_are_all_0_is_refused() -> None:
    """As of mode=soft mode.alpha=1 mode.weight=0."""
    nothing: dict[str, Objective] = {"distillation": Term(task_weight=0.0, weight=0.0), "other": Term(weight=0.0)}
    assert message_of(TotalLoss, nothing, 0.0).startswith("every weight of the loss is 0\n  ")
    something: dict[str, Objective] = {**nothing, "third": Term(weight=1e-9)}
    assert loss_of(TotalLoss(something, 0.0)) == pytest.approx(1e-9)


@pytest.mark.parametrize(
    "name", ["distillation", "cross_entropy", "loss", "accuracy", "a.b", "", "keys", "training", 3]
)
def test_an_added_objective_that_has_a_taken_name_is_refused(name: object) -> None:
    assert message_of(build_objectives, {**SOFT, "also": {name: ALONE}}, Builder()) == (
        f"mode.also.{name}: {name} cannot be the name of an added objective\n"
        "  choose another name; for a file of conf/mode, that is the name of the file"
    )


@pytest.mark.parametrize(
    ("also", "shown", "expected"),
    [
        (3, "mode.also=3", "names, each with"),
        (None, "mode.also=null", "names, each with"),
        ({"x": 1}, "mode.also.x=1", "mode.also.x.ARGUMENT=VALUE, or"),
        ({"x": {"alpha": 1}}, "mode.also.x={'alpha': 1}", "mode.also.x.ARGUMENT=VALUE, or"),
    ],
)
def test_what_does_not_describe_added_objectives_is_refused(also: object, shown: str, expected: str) -> None:
    assert message_of(build_objectives, {**SOFT, "also": also}, Builder()) == (
        f"{shown} is not accepted\n  write {expected} a mapping with a _target_ and the arguments of its constructor"
    )


def test_a_component_that_is_no_objective_is_refused() -> None:
    node = {"_target_": "distill_run.data.augment.Flip", "enabled": True}
    assert message_of(build_objectives, node, Builder()).startswith(
        "mode._target_=distill_run.data.augment.Flip gives no Objective\n  derive the class from "
    )


WEIGHTS = [0.5, 2.0, 1.0, 3.0, 0.25]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_are_those_of_torch_s_cross_entropy(smoothing: float) -> None:
    """In the cross-entropy with the targets, and in a mode that is such a cross-entropy; no other term changes."""
    expected = nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double(), label_smoothing=smoothing)(
        torch.from_numpy(STUDENT), TARGETS
    ).item()
    terms = {"smoothed": CrossEntropy(label_smoothing=smoothing), "other": Term(10.0)}
    loss, parts = TotalLoss({"first": Term(5.0), **terms}, smoothing, WEIGHTS).losses(batch(), *outputs())
    assert parts["cross_entropy"].item() == parts["smoothed"].item() == pytest.approx(expected, rel=1e-6)
    assert loss.item() == pytest.approx(2 * expected + 5 + 10, rel=1e-6)


def test_the_mean_with_class_weights_by_hand() -> None:
    """Targets 0, 3, 3, 1 with the weights 0.5, 3, 3, 2: the denominator is 8.5, not 4."""
    log_p = numpy_log_softmax(STUDENT)
    expected = -(0.5 * log_p[0, 0] + 3 * log_p[1, 3] + 3 * log_p[2, 3] + 2 * log_p[3, 1]) / 8.5
    total = TotalLoss({"first": Term(0.0)}, 0.0, WEIGHTS)
    assert loss_of(total) == pytest.approx(expected, rel=1e-6)
    assert not [name for name in total.state_dict() if "weights" in name]


def test_class_weights_of_mixed_images_are_those_of_torch_s_cross_entropy_with_probabilities() -> None:
    shares, partners = torch.tensor([1.0, 0.75, 0.5, 0.0]), torch.tensor([1, 2, 4, 0])
    one_hot = [nn.functional.one_hot(each, 5).double() for each in (TARGETS, partners)]
    mixed = shares.unsqueeze(1) * one_hot[0] + (1 - shares.unsqueeze(1)) * one_hot[1]
    expected = nn.CrossEntropyLoss(torch.tensor(WEIGHTS).double(), label_smoothing=0.1)(
        torch.from_numpy(STUDENT), mixed
    )
    given = dataclasses.replace(batch(), partner_targets=partners, shares=shares)
    _, parts = TotalLoss({"first": Term(0.0)}, 0.1, WEIGHTS).losses(given, *outputs())
    assert parts["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-6)
