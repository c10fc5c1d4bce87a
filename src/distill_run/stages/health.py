"""Watches over trainings: warns at the moment when one goes wrong, and says which key to change."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from distill_run.data.feed import Feed
from distill_run.data.splits import class_counts
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import StageFacts, Watcher

FEW_STEPS = 50  # in all: too few for random weights to become a network
FEW_IMAGES = 50  # of validation: one of them is two percentage points
GRACE = 1 / 3  # of the epochs, in which a network may stand still
STUCK = 0.02  # of the first epoch's loss, by which it must change
GOOD = 0.9  # accuracy; above it a loss may stand still
ONE_ANSWER = 0.99  # of the validation images
NEARLY_EVERY_STEP = 0.95  # of an epoch
STANDARD_ERRORS = 2.0  # that an accuracy must lie above that of the commonest class


class Health(Watcher):
    """Warns of trainings that go wrong; `failures` are the trainings that tell nothing of distillation, and why.

    A network is at chance where, on training and on validation images, it is no better than the commonest class, and
    its balanced accuracy on validation is no better than that of guessing: weights may trade the one for the other.
    """

    def __init__(self, feed: Feed, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.failures: list[str] = []
        val_counts = class_counts(feed.val, len(feed.classes))
        self.chance, self.val_chance = _chance(class_counts(feed.train, len(feed.classes))), _chance(val_counts)
        self.balanced_chance = _balanced_chance(val_counts)
        self.num_val = len(feed.val)
        self.is_one_class = val_counts.max().item() >= ONE_ANSWER * len(feed.val)
        self._stage: StageFacts | None = None
        self._rows: list[dict[str, Any]] = []  # of the training in progress
        self._told: set[str] = set()  # what was warned of
        self._teacher: float | None = None  # the best teacher's accuracy on validation
        if len(feed.val) < FEW_IMAGES:
            warn(
                f"validation has {len(feed.val)} images, of which one is {1 / len(feed.val):.1%}: too few to choose an "
                "epoch or a setting by; set a larger dataset.val_fraction, as in dataset.val_fraction=0.3"
            )

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher. The trainings of a learning-rate search may go wrong."""
        self._stage = None if stage.is_search else stage
        self._rows = []
        if not stage.is_search:
            self._count_steps(stage.name, stage.num_epochs, stage.num_epochs * stage.num_steps)
        for row in stage.history:
            self.epoch_ended(row)

    def _count_steps(self, stage: str, num_epochs: int, num_steps: int) -> None:
        if num_steps < FEW_STEPS:
            cure = f"set {_recipe(stage)}.epochs={math.ceil(FEW_STEPS * num_epochs / num_steps)}"
            few = f"{_who(stage)} has {num_steps} steps in all, too few to learn from"
            if self._tell(stage, "steps", f"{few}: {cure}"):
                self.failures.append(few)

    def epoch_ended(self, row: dict[str, Any]) -> None:
        """See Watcher."""
        stage = self._stage
        if stage is None:
            return
        self._rows.append(row)
        if row["epoch"] <= GRACE * stage.num_epochs:
            return
        who, recipe = _who(stage.name), _recipe(stage.name)
        after, losses = f"after epoch {row['epoch']}", [each["train"]["loss"] for each in self._rows]
        if problem := self._problem(row):
            cure = f"set {recipe}.clip_norm=1.0 or a smaller {recipe}.optimizer.lr"
            self._tell(stage.name, "problem", f"{who} {problem} {after}: {cure}")
        elif self._stands_still():
            moved = f"{losses[0]:.3g} in the first epoch, {losses[-1]:.3g} now"
            cure = f"set another {recipe}.optimizer.lr"
            self._tell(stage.name, "loss", f"{who}'s loss has not moved {after} ({moved}): {cure}")
        elif row["train"].get("clipped", 0.0) >= NEARLY_EVERY_STEP:
            cure = f"set a larger {recipe}.clip_norm or a smaller {recipe}.optimizer.lr"
            self._tell(stage.name, "clipped", f"{who}'s gradient was clipped in nearly every step {after}: {cure}")

    def stage_ended(self, trained: Trained) -> None:
        """See Watcher. What was reused, or trained before an interruption, is judged as well."""
        kind, accuracy = trained.stage.split()[0], trained.selected.val["accuracy"]
        if trained.cost.steps and trained.num_epochs is not None:
            self._recall(trained, trained.num_epochs, trained.cost.steps // len(trained.history))
        if problem := self._problem_of(trained):
            failure = f"{_who(trained.stage)} {problem}"
            self.failures.append(failure)
            self._tell(trained.stage, "problem", f"{failure}: change its {_recipe(trained.stage)}")
        if kind == "teacher":
            self._teacher = max(accuracy, self._teacher or 0.0)
        elif kind == "baseline" and self._teacher is not None and self._is_below(self._teacher, accuracy):
            self.warn(
                f"the teacher ({self._teacher:.2%} on validation) is worse than the student alone ({accuracy:.2%}): "
                "train it longer, search its learning rate, or choose a larger one before distilling from it"
            )
            self._teacher = None  # it is said once

    def _recall(self, trained: Trained, num_epochs: int, num_steps: int) -> None:
        """Warn of what was to be seen in the training; what this process has seen itself is not said again."""
        if trained.reused:
            self._count_steps(trained.stage, num_epochs, num_epochs * num_steps)
        else:
            name, fingerprint, history = trained.stage, trained.fingerprint, trained.history
            self.stage_begun(StageFacts(name, fingerprint, "", num_epochs, num_steps, is_search=False, history=history))

    def _problem_of(self, trained: Trained) -> str | None:
        """What is wrong with a network as it came out; of one that was loaded, only validation can tell."""
        if trained.history:
            problem = self._problem(trained.history[-1])
            return problem and f"{problem} after its last epoch"
        val = trained.selected.val
        return f"is at chance ({val['accuracy']:.2%} on validation)" if self._is_at_chance(val) else None

    def _problem(self, row: dict[str, Any]) -> str | None:
        """What is wrong with the network of an epoch, if it is of no use; follows on its name."""
        if row.get("answers", 0.0) >= ONE_ANSWER and not self.is_one_class:
            return "gives all validation images one class"
        if row["train"]["accuracy"] <= self.chance and self._is_at_chance(row["val"]):
            return f"is at chance ({row['train']['accuracy']:.2%} of its training images are right)"
        return None

    def _is_at_chance(self, val: dict[str, float]) -> bool:
        """Whether validation figures are those of guessing; earlier versions did not measure balanced accuracy."""
        return val["accuracy"] <= self.val_chance and val.get("balanced_accuracy", 0.0) <= self.balanced_chance

    def _stands_still(self) -> bool:
        losses: list[float] = [row["train"]["loss"] for row in self._rows]
        accuracy: float = self._rows[-1]["train"]["accuracy"]
        moved = max(abs(loss - losses[0]) for loss in losses)
        has_begun = len(losses) > 1 and self._rows[0]["epoch"] == 1
        return has_begun and moved < STUCK * losses[0] and accuracy < GOOD

    def _is_below(self, first: float, second: float) -> bool:
        """Whether an accuracy on validation is below another by more than chance would explain."""
        error = math.sqrt((first * (1 - first) + second * (1 - second)) / self.num_val)
        return second - first > STANDARD_ERRORS * error

    def _tell(self, stage: str, kind: str, text: str) -> bool:
        """Warn once of each kind: of few steps for each recipe, of the others for each training; whether it is new."""
        warning = f"{_recipe(stage) if kind == 'steps' else stage} {kind}"
        is_new = warning not in self._told
        if is_new:
            self._told.add(warning)
            self.warn(text)
        return is_new


def _chance(counts: Tensor) -> float:
    """The accuracy up to which a network may be at chance, from the numbers of images of each class (K,)."""
    num_images = counts.sum().item()
    commonest = counts.max().item() / num_images
    error = STANDARD_ERRORS * math.sqrt(commonest * (1 - commonest) / num_images)
    return commonest + min(error, (1 - commonest) / 2)  # a perfect network is above it


def _balanced_chance(counts: Tensor) -> float:
    """The balanced accuracy up to which a network may guess, from the numbers of images of each class (K,)."""
    present = counts[counts > 0].double()
    share = 1 / len(present)
    error = STANDARD_ERRORS * share * math.sqrt(share * (1 - share) * (1 / present).sum().item())
    return share + min(error, (1 - share) / 2)


def _who(stage: str) -> str:
    """A stage as a sentence names it: the student, student 2."""
    return stage if stage[-1].isdigit() else f"the {stage}"


def _recipe(stage: str) -> str:
    """The key of a stage's recipe."""
    return "training.teacher" if stage.startswith("teacher") else "training.student"
