"""Numbers that are not finite, injected at each place of a step: training stops before the weights change."""

import dataclasses
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import TINY
from distill_run.data.batches import Batch
from distill_run.engine.finite import check_logits_of, total_norm
from distill_run.engine.loop import Trainer
from distill_run.errors import DivergedError
from distill_run.models.layers import last_linear
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import LogitObjective, TargetObjective
from distill_run.objectives.hard import HardTargets
from helpers import message_of, some_split
from trainers import device, fit, make, network, soft_targets
from workshops import open_run

NAN = float("nan")


class Term(TargetObjective):
    """A term that is `value` of the student's logits."""

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.value = value

    def distillation(self, batch: Batch, student: Outputs) -> Tensor:
        return self.value(student.logits)


def images() -> Trainer:
    """One pixel of one image."""
    trainer = make()
    epoch = trainer.batches.epoch

    def spoilt(number: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in epoch(number, first_step):
            batch.images[3, 0, 1, 2] = NAN
            yield batch

    trainer.batches.epoch = spoilt  # type: ignore[method-assign, assignment]
    return trainer


def normalisation() -> Trainer:
    student = network()
    student.std[:] = 0
    return make(student=student)


def features() -> Trainer:
    trainer = make(points={"stem": "0"})
    layer = trainer.learner.network.architecture[0]  # type: ignore[index]
    layer.register_forward_hook(lambda _module, _inputs, output: output * 1e38 * 1e38, prepend=True)
    return trainer


def logits() -> Trainer:
    student = network()
    student.register_forward_hook(lambda _module, _inputs, output: output / 0)
    return make(student=student)


def taught(objective: LogitObjective) -> Trainer:
    trainer = make(objective)
    trainer.learner.guide = lambda batch: Outputs(torch.full((len(batch.targets), 3), NAN))
    return trainer


def term() -> Trainer:
    return make(Term(lambda logits: logits.sum() * torch.inf))


HARD = HardTargets(alpha=0.5, label_smoothing=0.0, standardize_logits=False)
PLACES = [
    (images, "the images", "mend the augmentation"),
    (normalisation, "the images after their normalisation", "mend the augmentation"),
    (features, "its features at stem", "lower its optimizer.lr"),
    (logits, "its logits", "lower its optimizer.lr"),
    (lambda: taught(soft_targets()), "the teacher's logits", "train that teacher again"),
    (lambda: taught(HARD), "the teacher's logits", "train that teacher again"),
    (term, "the term distillation", "lower its optimizer.lr"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("spoilt", "place", "remedy"), PLACES)
def test_the_place_is_named_and_the_weights_stay(
    spoilt: Callable[[], Trainer], place: str, remedy: str, precision: str
) -> None:
    """With hard targets the loss itself is finite: the argmax of NaN is a class."""
    trainer = spoilt()
    trainer.learner.device = device(precision)
    before = [weight.clone() for weight in trainer.learner.network.parameters()]
    with pytest.raises(DivergedError) as caught:
        fit(trainer)
    (mistake,) = caught.value.mistakes
    what = "teacher's logits are" if HARD in trainer.learner.loss.terms.values() else "loss is"
    assert mistake.what.startswith(f"the student's {what} not finite at epoch 1, step 1: loss=")
    assert mistake.what.endswith(f"; the first that is not: {place}")
    assert mistake.remedy.startswith(remedy)
    assert all(map(torch.equal, trainer.learner.network.parameters(), before))


def faulty_gradients() -> Trainer:
    """The loss is 0, the slope of a root at 0 is infinite, and 0 times infinity is NaN."""
    return make(Term(lambda logits: (logits - logits.detach()).square().sqrt().sum()))


def test_gradients_that_are_not_finite_stop_before_the_step() -> None:
    trainer = faulty_gradients()
    before = [weight.clone() for weight in trainer.learner.network.parameters()]
    with pytest.raises(DivergedError) as caught:
        fit(trainer)
    assert caught.value.mistakes[0].what == (
        "the student's gradients are not finite at epoch 1, step 1: those of 0.weight, 0.bias, 1.weight, 1.bias, "
        "4.weight and 1 more"
    )
    assert all(map(torch.equal, trainer.learner.network.parameters(), before))


def test_the_quick_length_of_gradients_is_finite_where_the_exact_one_is() -> None:
    generator = torch.Generator().manual_seed(0)
    usual = [torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (), (2, 3, 4, 4), (0,))]
    usual.append(usual[3].to(memory_format=torch.channels_last))
    torch.testing.assert_close(total_norm(usual, is_exact=False), total_norm(usual, is_exact=True))
    for values in ([inf], [nan], [inf, -inf], [1e20], [-1e20, 0.0]):  # the square of the last ones overflows
        assert not total_norm([*usual, torch.tensor(values)], is_exact=False).isfinite()
        assert not total_norm([*usual, torch.tensor(values)], is_exact=True).isfinite()
    assert total_norm([*usual, torch.full((9,), 1e18)], is_exact=False).isfinite()
    assert total_norm([], is_exact=False) == 0


def test_the_scale_of_half_precision_is_lowered_before_gradients_are_given_up() -> None:
    """Steps whose gradients overflow are left out, and the scale is halved; at 1 they are not the scale's fault."""
    trainer = faulty_gradients()
    trainer.learner.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [weight.clone() for weight in trainer.learner.network.parameters()]
    with pytest.raises(DivergedError, match="the student's gradients are not finite at epoch 1, step 3: "):
        fit(trainer)
    assert all(map(torch.equal, trainer.learner.network.parameters(), before))


def test_a_network_that_fails_on_an_image_of_the_test_split_is_told() -> None:
    logits = torch.zeros(6, 3)
    check_logits_of("the student", "test", logits, some_split(6, 3))
    logits[4, 2] = NAN
    assert message_of(check_logits_of, "the student", "test", logits, some_split(6, 3)).startswith(
        "the student gives logits that are not finite for 1 of the 6 test images, first for 4\n  look at that image; "
    )


@pytest.mark.parametrize("top_k", ["null", "3"])
def test_the_bank_keeps_no_logits_that_are_not_finite(top_k: str, tmp_path: Path) -> None:
    opened = open_run(tmp_path, [*TINY, f"logit_bank_top_k={top_k}", "training.teacher.epochs=1"])
    trained = opened.teacher()
    with torch.no_grad():
        last_linear(trained.own_network, "teacher")[1].bias[7] = NAN
    trainer, guide = opened.student(dataclasses.replace(trained, fingerprint="0" * 64))
    assert guide is not None
    assert message_of(guide, next(iter(trainer.batches.epoch(1)))) == (
        "the teacher's logits are not finite for a training image\n"
        "  train that teacher again, or write device.precision=fp32"
    )
    assert list((tmp_path / "store" / "logits").rglob("*.npy")) == []
