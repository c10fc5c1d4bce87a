"""The training loop: what it does to the networks, and that it is what one would write by hand."""

import copy
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_run.data.batches import Batch
from distill_run.engine import loop
from distill_run.engine.evaluate import measure, predict
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.schedules import Constant, Cosine, Plateau
from distill_run.errors import DivergedError, Interrupted, PrunedError
from distill_run.models.outputs import Outputs
from distill_run.objectives.base import FeatureObjective, TargetObjective
from distill_run.objectives.total import TotalLoss
from distill_run.stages.live_teacher import LiveTeacher
from trainers import EPOCHS, Watcher, device, fit, make, make_recipe, network, soft_targets


def test_the_loop_is_the_one_that_one_would_write_by_hand() -> None:
    """Parity with raw torch: distillation with a live teacher, clipping and a cosine schedule."""
    guide = LiveTeacher(network(seed=9), device())
    cosine = Cosine(epochs=EPOCHS, final_fraction=0.0, warmup_epochs=0)
    trainer = make(soft_targets(), guide, cosine, clip_norm=0.5)
    fit(trainer)

    student, teacher = network(), network(seed=9).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * trainer.batches.num_steps)
    student.train()
    for epoch in range(1, EPOCHS + 1):
        for batch in trainer.batches.epoch(epoch):
            logits = student(batch.images)
            with torch.no_grad():
                wanted = (teacher(batch.images) / 2).softmax(1)
            kl = (wanted * (wanted.log() - (logits / 2).log_softmax(1))).sum(1).mean()
            loss = 0.3 * F.cross_entropy(logits, batch.targets) + 0.7 * 4 * kl
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(trainer.learner.network.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_frozen_in_eval_mode_and_sees_the_student_s_view() -> None:
    teacher = network(seed=9)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    seen: list[Tensor] = []
    teacher.architecture.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    guide = LiveTeacher(teacher, device())
    trainer = make(soft_targets(), guide)
    shown: list[Tensor] = []
    trainer.learner.network.architecture.register_forward_pre_hook(
        lambda module, inputs: shown.append(inputs[0]) if module.training else None
    )
    fit(trainer)
    assert not any(module.training for module in guide.network.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in guide.network.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())
    assert len(seen) == len(shown) == EPOCHS * trainer.batches.num_steps
    assert all(torch.equal(first, second) for first, second in zip(seen, shown, strict=True))


def test_features_and_a_projection_train_as_one_would_write_it_by_hand() -> None:
    class Imitation(FeatureObjective):
        def __init__(self) -> None:
            super().__init__(weight=3.0, student_points=["map"], teacher_points=["map"])
            with torch.random.fork_rng():
                torch.manual_seed(4)
                self.projection = nn.Conv2d(4, 4, 1)

        def distillation(self, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
            ((ours, theirs),) = self.features(student, teacher)
            return F.mse_loss(self.projection(ours), theirs)

    points = {"map": "1"}  # the batch norm
    objective = Imitation()
    trainer = make(objective, LiveTeacher(network(seed=9), device(), points), points=points)
    fit(trainer)

    student, teacher, projection = network(), network(seed=9).eval(), Imitation().projection
    optimizer = torch.optim.SGD([*student.parameters(), *projection.parameters()], lr=0.05, momentum=0.9)
    student.train()
    for epoch in range(1, EPOCHS + 1):
        for batch in trainer.batches.epoch(epoch):
            pixels = (batch.images - 0.4) / 0.2
            ours = student.architecture[:2](pixels)  # type: ignore[index]
            with torch.no_grad():
                theirs = teacher.architecture[:2](pixels)  # type: ignore[index]
            task = F.cross_entropy(student.architecture[2:](ours), batch.targets)  # type: ignore[index]
            loss = task + 3 * (projection(ours) - theirs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for module, trained in ((student, trainer.learner.network), (projection, objective.projection)):
        for name, value in module.state_dict().items():
            torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_best_epoch_on_validation_is_selected_and_ties_go_to_the_lower_nll() -> None:
    trainer = make()
    watcher = fit(trainer)
    best = max(watcher.rows, key=lambda row: (row["val"]["accuracy"], -row["val"]["nll"]))
    assert trainer.selected["epoch"] == best["epoch"]
    assert trainer.selected["val"] == best["val"]
    trainer.learner.network.architecture.load_state_dict(trainer.selected["weights"])
    assert measure(predict(trainer.learner.network, trainer.val), trainer.val.targets) == best["val"]


@pytest.mark.parametrize("select_by", ["accuracy", "balanced_accuracy", "macro_f1", "nll"])
def test_the_figure_that_selects_chooses_the_epoch(select_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each figure is best in an epoch of its own, and the plateau sees the same figure."""
    best_epochs = {"accuracy": 1, "balanced_accuracy": 2, "macro_f1": 3, "nll": 4}
    rows = [{name: 0.5 + 0.1 * (best == epoch) for name, best in best_epochs.items()} for epoch in range(1, 9)]
    for row in rows:
        row["nll"] = 1 - row["nll"]
    measured = iter(rows)
    monkeypatch.setattr("distill_run.engine.loop.measure", lambda *_: next(measured))
    plateau = Plateau(epochs=9, patience=9, gamma=0.5, warmup_epochs=0)
    trainer = make(select_by=select_by, epochs=9, patience=3, schedule=plateau)
    watcher = fit(trainer)
    best = best_epochs[select_by]
    assert trainer.selected["epoch"] == best
    assert len(watcher.rows) == best + 3
    assert plateau.best == (-0.4 if select_by == "nll" else 0.6)


def test_an_epoch_s_figures_are_means_over_its_images() -> None:
    watcher = fit(make())
    sizes = [16, 16, 16, 2]
    losses = watcher.losses[:4]
    expected = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
    assert watcher.rows[0]["train"]["loss"] == pytest.approx(expected, rel=1e-6)
    assert watcher.rows[0]["train"]["cross_entropy"] == watcher.rows[0]["train"]["loss"]
    assert 0 <= watcher.rows[0]["data_share"] <= 1


def test_clipping_limits_the_step() -> None:
    start = torch.cat([parameter.detach().flatten() for parameter in network().parameters()])
    trainer = make(clip_norm=1e-3, epochs=1, schedule=Constant(epochs=1, warmup_epochs=0))
    fit(trainer)
    end = torch.cat([parameter.detach().flatten() for parameter in trainer.learner.network.parameters()])
    # Four steps of at most lr * 1e-3, which momentum 0.9 stretches to 1 + 1.9 + 2.71 + 3.439 of them.
    assert 0 < (end - start).norm() <= 0.05 * 1e-3 * 9.05


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step() -> None:
    trainer = make(lr=0.05)
    fit(trainer)
    before = {name: value.clone() for name, value in trainer.learner.network.named_parameters()}
    trainer.learner.recipe = make_recipe(epochs=EPOCHS + 1)
    trainer.batches.views.split.targets[:] = 0  # type: ignore[attr-defined]

    class Broken(TargetObjective):
        def distillation(self, batch: Batch, student: Outputs) -> Tensor:
            return student.logits.sum() * float("inf")

    trainer.learner.loss = TotalLoss({"broken": Broken()}, label_smoothing=0.0)
    watcher = Watcher()
    with StopRequest() as stop, pytest.raises(DivergedError) as caught:
        trainer.fit(watcher, stop)
    assert str(caught.value).startswith("the student's loss is not finite at epoch 4, step 1: loss=")
    assert ", cross_entropy=" in str(caught.value)
    assert ", broken=" in str(caught.value)
    assert watcher.saved == []  # the statistics of batch norm may have taken in what is not finite
    assert all(torch.equal(value, before[name]) for name, value in trainer.learner.network.named_parameters())


def test_a_validation_loss_that_is_not_finite_stops_too() -> None:
    trainer = make(lr=1e38, epochs=1)
    trainer.batches.batch_size = 50  # one step, whose own loss is still finite
    with pytest.raises(DivergedError, match="the student's validation loss is not finite after epoch 1"):
        fit(trainer)


def test_a_training_cut_after_the_first_of_its_steps_has_spent_time() -> None:
    trainer = make(epochs=1)
    trainer.batches.batch_size = 50
    watcher = Watcher()
    with StopRequest() as stop:
        watcher.stepped = lambda *_: stop.request(Interrupted())  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            trainer.fit(watcher, stop)
    again = make(epochs=1)
    again.batches.batch_size = 50
    again.load_state(watcher.saved[-1])
    assert fit(again).rows[0]["images_per_second"] > 0


def test_patience_ends_a_training_that_does_not_improve() -> None:
    trainer = make(lr=1e-12, epochs=30, patience=2)
    watcher = fit(trainer)
    assert len(watcher.rows) == trainer.selected["epoch"] + 2 < 30


def test_a_training_ends_with_what_its_stop_was_requested_with_at_the_end_of_an_epoch() -> None:
    """So a watcher can give up a trial; the state is saved first."""
    trainer, watcher = make(), Watcher()
    with StopRequest() as stop:
        watcher.epoch_ended = lambda row: stop.request(PrunedError())  # type: ignore[method-assign] # noqa: ARG005
        with pytest.raises(PrunedError):
            trainer.fit(watcher, stop)
    assert trainer.epoch == 2
    assert [(state["epoch"], state["step"]) for state in watcher.saved] == [(2, 0)]


def test_the_state_is_saved_within_an_epoch_where_its_time_has_come() -> None:
    often, seldom = make(epochs=2), make(epochs=2)
    often.checkpoint_seconds, seldom.checkpoint_seconds = 0.0, 3600.0
    places = [(state["epoch"], state["step"]) for state in fit(often).saved]
    assert places == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (3, 0)]
    assert [(state["epoch"], state["step"]) for state in fit(seldom).saved] == [(2, 0), (3, 0)]


def test_a_signal_during_validation_ends_the_training_after_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut, resumed = make(epochs=2), make(epochs=2), make(epochs=2)
    fit(whole)
    watcher = Watcher()
    with monkeypatch.context() as patch, StopRequest() as stop:
        patch.setattr(loop, "predict", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            cut.fit(watcher, stop)
    (state,) = watcher.saved
    assert (state["epoch"], state["step"], state["history"]) == (1, 4, [])
    resumed.load_state(copy.deepcopy(state))
    fit(resumed)
    ours, theirs = resumed.learner.network.state_dict(), whole.learner.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert [row["val"] for row in resumed.history] == [row["val"] for row in whole.history]
