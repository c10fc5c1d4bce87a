"""Fine-tuning: accumulation, the moving average of the weights, groups of parameters, frozen batch norm."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill_run import tensor_files
from distill_run.engine.evaluate import measure, predict
from distill_run.engine.fine_tuning import MovingAverage, parameter_groups
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.loop import Trainer
from distill_run.engine.schedules import Constant, Cosine
from distill_run.errors import Interrupted
from distill_run.models.network import Network
from distill_run.objectives.none import CrossEntropy
from distill_run.objectives.total import TotalLoss
from helpers import message_of
from trainers import EPOCHS, Watcher, fit, make, make_recipe, network


def without_batch_norm() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return Network(layers, [0.4], [0.2])


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    """50 images: batches of 8 by threes, the last step a batch of 2; batches of 24, the last of 2."""
    small = make(student=without_batch_norm(), schedule=Cosine(epochs=EPOCHS, final_fraction=0.0, warmup_epochs=0),
                 accumulation=3, clip_norm=0.3)  # fmt: skip
    small.batches.batch_size = 8
    large = make(student=without_batch_norm(), schedule=Cosine(epochs=EPOCHS, final_fraction=0.0, warmup_epochs=0),
                 clip_norm=0.3)  # fmt: skip
    large.batches.batch_size = 24
    found, expected = fit(small), fit(large)
    assert small.num_steps == large.num_steps == 3
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    for name, value in weights_of(large.learner.network).items():
        torch.testing.assert_close(small.learner.network.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-5)
        assert one["learning_rate"] == other["learning_rate"]
    assert 0 < found.rows[0]["train"]["clipped"] <= 1


def test_steps_are_told_with_the_images_of_all_their_batches() -> None:
    class Counting(Watcher):
        def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
            self.losses.append(num_images)

    trainer, watcher = make(accumulation=2, epochs=1), Counting()
    for step in trainer._train_epoch(watcher, StopRequest()):
        step.take()
    assert watcher.losses == [32, 18]


def test_the_moving_average_is_that_of_every_step_and_is_what_is_evaluated() -> None:
    """By hand, buffers included: the first step's weights, then 0.9 of the average and 0.1 of the weights."""
    trainer = make(ema=0.9)
    seen: list[dict[str, Tensor]] = []

    class Listening(Watcher):
        def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
            seen.append(weights_of(trainer.learner.network.architecture))

    watcher = Listening()
    for step in trainer._train_epoch(watcher, StopRequest()):
        step.take()
    row = trainer._finish_epoch(trainer._validate(watcher, StopRequest()))
    expected = seen[0]
    for weights in seen[1:]:
        expected = {name: 0.9 * value + 0.1 * weights[name] for name, value in expected.items()}
    found = trainer.learner.evaluated.architecture.state_dict()
    for name in expected:
        if expected[name].is_floating_point() and "num_batches" not in name:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(trainer.selected["weights"][name], found[name], rtol=0, atol=0)
    assert "1.running_mean" in found
    assert not torch.equal(found["0.weight"], trainer.learner.network.architecture.state_dict()["0.weight"])
    assert row["val"] == measure(predict(trainer.learner.evaluated, trainer.val), trainer.val.targets)


def test_the_moving_average_is_torch_s_own_bit_for_bit() -> None:
    """Which makes the host wait for a GPU at every step."""
    student = network()
    update = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    ours, theirs = MovingAverage(student, 0.9), AveragedModel(student, multi_avg_fn=update, use_buffers=True)
    for _ in range(3):
        student(torch.rand(8, 1, 6, 6))
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(torch.randn_like(weight))
        ours.update_parameters(student)
        theirs.update_parameters(student)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_without_an_average_the_network_itself_is_evaluated() -> None:
    trainer = make()
    assert trainer.learner.evaluated is trainer.learner.network


@pytest.mark.parametrize("is_frozen", [True, False])
def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_weights(is_frozen: bool) -> None:
    trainer = make(freeze_batch_norm=is_frozen)
    before = weights_of(trainer.learner.network.architecture)
    fit(trainer)
    after = trainer.learner.network.architecture.state_dict()
    statistics = [f"1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert [torch.equal(after[name], before[name]) for name in statistics] == [is_frozen] * 3
    assert not torch.equal(after["1.weight"], before["1.weight"])


def named_groups(**changes: Any) -> list[tuple[list[str], dict[str, Any]]]:
    """The names of the parameters of each group, and what the group says of them."""
    student = network()
    student.architecture[0].weight.requires_grad_(False)  # type: ignore[index]
    loss = TotalLoss({"cross_entropy": CrossEntropy(label_smoothing=0.0)}, 0.0)
    loss.projection = nn.Linear(2, 2)
    names = {id(value): name for name, value in student.architecture.named_parameters()}
    names |= {id(value): name for name, value in loss.named_parameters()}
    groups = parameter_groups(student, loss, make_recipe(optimizer={"lr": 0.4}, **changes), "training.student")
    found = []
    for group in groups:
        parameters = group.pop("params")
        found.append(([names[id(each)] for each in parameters], group))
    return found


def test_by_default_all_that_learns_is_in_one_group() -> None:
    everything = ["0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "projection.weight", "projection.bias"]
    assert named_groups() == [(everything, {})]


def test_the_backbone_learns_at_a_part_of_the_rate_and_the_head_comes_first() -> None:
    assert named_groups(backbone_lr_factor=0.25) == [
        (["4.weight", "4.bias", "projection.weight", "projection.bias"], {}),
        (["0.bias", "1.weight", "1.bias"], {"lr": 0.1}),
    ]


def test_norms_and_biases_may_be_without_weight_decay() -> None:
    free = {"weight_decay": 0.0}
    assert named_groups(decay_norms=False) == [
        (["4.weight", "projection.weight"], {}),
        (["0.bias", "1.weight", "1.bias", "4.bias", "projection.bias"], free),
    ]
    assert named_groups(decay_norms=False, backbone_lr_factor=0.5) == [
        (["4.weight", "projection.weight"], {}),
        (["4.bias", "projection.bias"], free),
        (["0.bias", "1.weight", "1.bias"], {"lr": 0.2, **free}),
    ]


def test_a_part_of_a_rate_that_is_not_set_is_refused() -> None:
    loss = TotalLoss({"cross_entropy": CrossEntropy(label_smoothing=0.0)}, 0.0)
    message = message_of(parameter_groups, network(), loss, make_recipe(backbone_lr_factor=0.1), "training.student")
    assert message == (
        "training.student.backbone_lr_factor is a part of the optimizer's rate, and training.student.optimizer.lr is "
        "not set\n  set it, as in training.student.optimizer.lr=0.001"
    )


def test_the_schedule_multiplies_the_rate_of_each_group() -> None:
    trainer = make(schedule=Constant(epochs=EPOCHS, warmup_epochs=2), lr=0.4, backbone_lr_factor=0.25)
    trainer.learner.scale_rates(trainer.schedule.factor(1.0))
    assert [group["lr"] for group in trainer.learner.optimizer.param_groups] == pytest.approx([0.2, 0.05])


@pytest.mark.parametrize("polls", [1, 3, 4])
def test_a_training_that_goes_on_ends_like_an_uninterrupted_one_with_all_of_it(polls: int, tmp_path: Path) -> None:
    """Cut after each kind of moment: the first step, the end of an epoch of two steps, the second epoch's first."""
    asked: dict[str, Any] = {"accumulation": 2, "ema": 0.8, "decay_norms": False, "backbone_lr_factor": 0.5}
    asked |= {"clip_norm": 0.5, "freeze_batch_norm": True, "epochs": 2}

    def balanced() -> Trainer:
        trainer = make(**asked)
        trainer.batches.balance(torch.arange(50) % 3)
        return trainer

    whole, cut, again = balanced(), balanced(), balanced()
    rows, watcher = fit(whole).rows, Watcher()
    asks, stop = count(1), StopRequest()

    def ask(*_: Any) -> None:
        if next(asks) == polls:
            stop.request(Interrupted())

    watcher.stepped = watcher.epoch_ended = ask  # type: ignore[method-assign, assignment]
    with pytest.raises(Interrupted), stop:
        cut.fit(watcher, stop)
    tensor_files.save(tmp_path / "last.pt", watcher.saved[-1])
    again.load_state(tensor_files.load(tmp_path / "last.pt"))
    fit(again)
    for one, other in (
        (whole.learner.network, again.learner.network),
        (whole.learner.evaluated, again.learner.evaluated),
    ):
        torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=0, atol=0)
    assert [row["val"] for row in again.history] == [row["val"] for row in rows]
    assert again.selected["epoch"] == whole.selected["epoch"]
    torch.testing.assert_close(again.selected["weights"], whole.selected["weights"], rtol=0, atol=0)


def test_the_state_of_a_version_without_it_goes_on() -> None:
    whole, cut, again = make(), make(epochs=1), make()
    fit(whole)
    state = fit(cut).saved[-1]
    del state["average"], state["selected"]["val"]["macro_f1"], state["selected"]["val"]["balanced_accuracy"]
    again.load_state(state)
    fit(again)
    torch.testing.assert_close(
        dict(again.learner.network.state_dict()), dict(whole.learner.network.state_dict()), rtol=0, atol=0
    )
