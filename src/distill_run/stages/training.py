"""A training as a value: all that its outcome depends on, in plain data."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill_run.config.schema import DeviceSettings, Recipe
from distill_run.data.views import ViewChoice
from distill_run.fingerprints import fingerprint_of
from distill_run.models.published import network_name

SEARCH_KEYS = ("lr_search", "lr_search_epochs")  # of a recipe; only the rate that the search found matters


@dataclass(frozen=True)
class Architecture:
    """An architecture: its place in the configuration, the option that names it, and its YAML."""

    key: str
    option: str
    node: dict[str, Any]

    @property
    def name(self) -> str:
        """What people call it."""
        return network_name(self.option, self.node)


@dataclass(frozen=True)
class DataFacts:
    """The images of a training: the sha256 of the dataset, the normalisation, the augmentation's YAML by name.

    `unlabelled` is the sha256 of the unlabelled images that join; None where none do.
    """

    content: str
    num_classes: int
    mean: list[float]
    std: list[float]
    augment: dict[str, Any]
    unlabelled: str | None = None


@dataclass(frozen=True)
class Training:
    """Who is trained, on what, how, from which seed, in which precision, and by which teacher.

    `stage`, `mode_name`, the architecture's key and option, and `recipe_key` say where the training stands; its outcome
    does not depend on them. `mode` is the YAML of the objective; None means cross-entropy alone. `teacher` is the
    fingerprint of the teacher that guides the training, `top_k` how many of its logits are kept for each sample; None
    means all. `code` and `mode_code` are the sha256 of the user's own code,
    where it is used; `program` identifies this program's. `start` holds the sha256 of each file of weights that the
    network starts from; `trains` is what learns: all, or only the head. `select_by` is the validation figure that
    selects the epoch, `class_weights` are those of the cross-entropy with the targets, `sampling` and
    `unlabelled_share` say which samples an epoch draws (see Batches).
    """

    stage: str
    architecture: Architecture
    data: DataFacts
    views: ViewChoice
    sampling: str | None
    recipe: Recipe
    recipe_key: str
    select_by: str
    class_weights: list[float] | None
    seed: int
    device: DeviceSettings
    code: str | None
    program: str
    mode: Mapping[str, Any] | None = None
    mode_name: str = "none"
    mode_code: str | None = None
    teacher: str | None = None
    top_k: int | None = None
    unlabelled_share: float | None = None
    start: tuple[str, ...] = ()
    trains: str = "all"

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the outcome depends on, as plain containers."""
        recipe = dataclasses.asdict(self.recipe)
        for key in SEARCH_KEYS:
            del recipe[key]
        return {
            "program": self.program,
            "architecture": self.architecture.node,
            "data": dataclasses.asdict(self.data),
            "views": dataclasses.asdict(self.views),
            "sampling": self.sampling,
            "unlabelled_share": self.unlabelled_share,
            "recipe": recipe,
            "select_by": self.select_by,
            "class_weights": self.class_weights,
            "seed": self.seed,
            "device": self.device.inputs,
            "code": self.code,
            "mode": None if self.mode is None else dict(self.mode),
            "mode_code": self.mode_code,
            "teacher": self.teacher,
            "top_k": self.top_k,
            "start": self.start,
            "trains": self.trains,
        }

    @property
    def fingerprint(self) -> str:
        """The sha256 of all that the outcome depends on; a training with a mode has one once its teacher is known."""
        assert self.mode is None or self.teacher is not None
        return fingerprint_of(self.inputs)

    def alone(self, stage: str) -> "Training":
        """The same training with cross-entropy alone, without a teacher and without unlabelled images."""
        return dataclasses.replace(
            self,
            stage=stage,
            data=dataclasses.replace(self.data, unlabelled=None),
            views=dataclasses.replace(self.views, with_unlabelled=False),
            unlabelled_share=None,
            mode=None,
            mode_name="none",
            mode_code=None,
            teacher=None,
            top_k=None,
        )

    def with_rate(self, rate: float) -> "Training":
        """The same training at another learning rate."""
        recipe = dataclasses.replace(self.recipe, optimizer={**self.recipe.optimizer, "lr": rate})
        return dataclasses.replace(self, recipe=recipe)
