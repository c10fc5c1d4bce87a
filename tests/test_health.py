"""Trainings that go wrong are told while they go on, with the key to change; then there is no verdict."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY
from distill_run.config.settings import compose_config
from distill_run.data.feed import MemoryFeed
from distill_run.data.source import Split
from distill_run.data.splits import Dataset
from distill_run.pipeline import run
from distill_run.stages.health import Health
from distill_run.stages.trained import Cost, Measured, Origin, Trained
from distill_run.stages.watcher import StageFacts, Watcher
from workshops import open_run


def split(count: int) -> Split:
    return Split(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), torch.arange(count) % 4)


def watched(num_val: int = 100) -> tuple[Health, list[str]]:
    told: list[str] = []
    dataset = Dataset(split(400), split(num_val), split(100), tuple("abcd"), (), "0" * 64)
    return Health(MemoryFeed(dataset, {}), told.append), told


def begin(health: Health, stage: str = "student", num_epochs: int = 9, num_steps: int = 50, **facts: Any) -> None:
    health.stage_begun(StageFacts(stage, "f" * 64, "p", num_epochs, num_steps, **{"is_search": False, **facts}))


def row(
    epoch: int, loss: float = 1.0, accuracy: float = 0.6, answers: float = 0.3, val: float = 0.25, **train: float
) -> dict[str, Any]:
    figures = {"loss": loss, "accuracy": accuracy, **train}
    return {"epoch": epoch, "train": figures, "val": {"accuracy": val}, "answers": answers}


def trained(stage: str, accuracy: float, history: Sequence[dict[str, Any]] = ()) -> Trained:
    val = {"accuracy": accuracy, "nll": 1.0}
    measured = Measured(None, val, torch.zeros(1, 4))
    return Trained(
        stage=stage, name="net", node={}, network=None, fingerprint="f", selected=measured,  # type: ignore[arg-type]
        last=measured, origin=Origin.TRAINED, history=tuple(history),
    )  # fmt: skip


def test_a_training_that_learns_is_left_in_peace() -> None:
    health, told = watched()
    begin(health)
    rows = [row(epoch, loss=2.0 / epoch, accuracy=0.2 + 0.08 * epoch) for epoch in range(1, 10)]
    for each in rows:
        health.epoch_ended(each)
    health.stage_ended(trained("student", 0.8, rows))
    assert (told, health.failures) == ([], [])


def test_few_steps_are_told_once_for_each_recipe() -> None:
    health, told = watched()
    for stage in ("teacher", "baseline", "student", "baseline 2"):
        begin(health, stage, num_epochs=4, num_steps=6)
    begin(health, "baseline lr=0.1", num_epochs=1, num_steps=6, is_search=True)
    words = "has 24 steps in all, too few to learn from: set"
    assert told == [
        f"the teacher {words} training.teacher.epochs=9",
        f"the baseline {words} training.student.epochs=9",
    ]


def test_few_steps_of_a_network_from_the_store_are_told_as_well() -> None:
    health, told = watched()
    rows = [row(epoch, loss=2 / epoch, val=0.6) for epoch in (1, 2)]
    reused = dataclasses.replace(trained("teacher", 0.6, rows), origin=Origin.REUSED, num_epochs=2, cost=Cost(steps=36))
    health.stage_ended(reused)
    assert told == ["the teacher has 36 steps in all, too few to learn from: set training.teacher.epochs=3"]
    assert health.failures == ["the teacher has 36 steps in all, too few to learn from"]


def test_what_was_seen_before_an_interruption_is_told_again_and_once() -> None:
    """Of a training that goes on, and of one that an earlier process has finished."""
    rows = [row(epoch, loss=3 / epoch, answers=1.0) for epoch in range(1, 10)]
    words = "gives all validation images one class after epoch 4"
    health, told = watched()
    begin(health, "student", history=tuple(rows[:5]))
    health.epoch_ended(rows[5])
    assert [text for text in told if words in text] == told
    assert len(told) == 1
    health, told = watched()
    done = dataclasses.replace(trained("student", 0.6, rows), num_epochs=9, cost=Cost(steps=90))
    health.stage_ended(done)
    assert [words in text for text in told] == [True]


def test_one_answer_for_all_images_is_told_after_a_third_of_the_training() -> None:
    health, told = watched()
    begin(health, "student 2")
    rows = [row(epoch, loss=3 / epoch, answers=1.0) for epoch in range(1, 10)]
    for each in rows[:3]:
        health.epoch_ended(each)
    assert told == []
    for each in rows[3:]:
        health.epoch_ended(each)
    assert told == [
        "student 2 gives all validation images one class after epoch 4: "
        "set training.student.clip_norm=1.0 or a smaller training.student.optimizer.lr"
    ]
    health.stage_ended(trained("student 2", 0.25, rows))
    assert health.failures == ["student 2 gives all validation images one class after its last epoch"]


@pytest.mark.parametrize(("accuracy", "is_at_chance"), [(0.29, True), (0.30, False)])
def test_chance_is_the_commonest_class_and_two_standard_errors(accuracy: float, is_at_chance: bool) -> None:
    """A quarter of 400 images, and 2 * sqrt(0.25 * 0.75 / 400) = 0.0433 above it."""
    health, told = watched()
    begin(health)
    last = row(9, accuracy=accuracy)
    health.epoch_ended(last)
    health.stage_ended(trained("student", 0.25, [last]))
    assert bool(told) == is_at_chance
    assert (
        health.failures
        == ["the student is at chance (29.00% of its training images are right) after its last epoch"] * is_at_chance
    )


def test_a_loss_that_does_not_move_and_gradients_that_are_always_clipped_are_told() -> None:
    health, told = watched()
    begin(health)
    for epoch in range(1, 6):
        health.epoch_ended(row(epoch, loss=7.2 - 0.01 * epoch))
    begin(health, "student 2")
    for epoch in range(1, 6):
        health.epoch_ended(row(epoch, loss=7.2 / epoch, clipped=0.97))
    assert told == [
        "the student's loss has not moved after epoch 4 (7.19 in the first epoch, 7.16 now): "
        "set another training.student.optimizer.lr",
        "student 2's gradient was clipped in nearly every step after epoch 4: "
        "set a larger training.student.clip_norm or a smaller training.student.optimizer.lr",
    ]


def test_a_teacher_below_the_baseline_is_told_when_the_baseline_is_there() -> None:
    health, told = watched()
    for stage, accuracy in (("teacher", 0.7), ("teacher 2", 0.6), ("baseline", 0.8)):
        health.stage_ended(trained(stage, accuracy))
    assert told == []
    for stage in ("baseline 2", "baseline 3"):
        health.stage_ended(trained(stage, 0.9))
    assert [text.split(":")[0] for text in told] == [
        "the teacher (70.00% on validation) is worse than the student alone (90.00%)"
    ]


def test_a_teacher_that_was_loaded_is_judged_by_validation() -> None:
    """100 images of four classes: chance reaches up to 0.25 + 2 * sqrt(0.25 * 0.75 / 100) = 0.3366."""
    for accuracy, failures in ((0.33, ["the teacher is at chance (33.00% on validation)"]), (0.34, [])):
        health, told = watched()
        health.stage_ended(trained("teacher", accuracy))
        assert health.failures == failures
        assert len(told) == len(failures)


def test_a_network_that_trades_accuracy_for_balance_is_not_at_chance() -> None:
    """Of 100 images, 90 are of the first of four classes: 80% right is below 90%, but guessing gives each class 25%.

    Its error is 1/4 * sqrt(3/16 * (1/90 + 1/4 + 1/3 + 1/3)) = 0.1043, twice.
    """
    counts = torch.tensor([0] * 90 + [1] * 4 + [2] * 3 + [3] * 3)
    uneven = Split(torch.zeros(100, 1, 4, 4, dtype=torch.uint8), counts)
    told: list[str] = []
    health = Health(MemoryFeed(Dataset(uneven, uneven, uneven, tuple("abcd"), (), "0" * 64), {}), told.append)
    assert health.balanced_chance == pytest.approx(0.25 + 2 * 0.1043, abs=1e-4)
    for balanced, is_failure in ((0.45, True), (0.46, False)):
        health.failures.clear()
        each = row(9, accuracy=0.5, val=0.8)
        each["val"]["balanced_accuracy"] = balanced
        health.stage_ended(trained("student", 0.8, [each]))
        assert bool(health.failures) is is_failure


def test_a_small_validation_split_is_told() -> None:
    assert watched(num_val=50)[1] == []
    assert watched(num_val=40)[1] == [
        "validation has 40 images, of which one is 2.5%: too few to choose an epoch or a setting by; "
        "set a larger dataset.val_fraction, as in dataset.val_fraction=0.3"
    ]


def test_a_run_whose_student_is_at_chance_gives_no_verdict(tmp_path: Path) -> None:
    lame = ["training.student.optimizer.lr=30", "training.student.clip_norm=1.0", "training.student.epochs=6"]
    report = run(compose_config([*TINY, *lame, f"store_dir={tmp_path / 'store'}"]), tmp_path / "run")
    assert report.conclusion.startswith("No verdict on distillation: the baseline ")
    assert len(report.failures) == 2
    assert any("training.student.optimizer.lr" in warning for warning in report.warnings)


def test_a_large_student_that_is_larger_than_its_teacher_is_told(tmp_path: Path) -> None:
    """64 pixels into 14,000 neurons and these into 10 classes: 65 * 14,000 + 14,001 * 10 = 1,050,010 parameters."""
    told: list[str] = []

    class Told(Watcher):
        def warned(self, text: str) -> None:
            told.append(text)

    for hidden in ("14000", "13000"):
        open_run(tmp_path, [*TINY, f"student.hidden=[{hidden}]"], Told())
    assert [text for text in told if "parameters" in text] == [
        "the student has 1.05M parameters, the teacher 496: choose a smaller one, as in student=resnet8"
    ]
