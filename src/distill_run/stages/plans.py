"""From settings to trainings: who is trained in a run, and how."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from distill_run.build import Builder
from distill_run.config.schema import Recipe, Settings
from distill_run.data.feed import Feed
from distill_run.data.views import ViewChoice
from distill_run.errors import user_error
from distill_run.fingerprints import file_hash
from distill_run.models.published import weight_files
from distill_run.stages.class_weights import class_weights
from distill_run.stages.program import program_identity
from distill_run.stages.training import Architecture, DataFacts, Training
from distill_run.units import counted


@dataclass(frozen=True)
class Planner:
    """Makes the trainings of a run from its settings, which are complete: no null is left in them."""

    settings: Settings
    feed: Feed
    builder: Builder

    def teachers(self) -> list[Training]:
        """The trainings of the teachers that are not given: each architecture with each of the seeds."""
        settings = self.settings
        if settings.teacher_trains == "nothing":
            return []
        first = len(checkpoint_paths(settings)) + 1
        pairs = product(_teacher_architectures(settings), teacher_seeds(settings))
        trainings = []
        for number, (architecture, seed) in enumerate(pairs, start=first):
            alone = self._alone(numbered("teacher", number), architecture, "teacher", seed, seed)
            trainings.append(alone if settings.teacher_trains == "all" else self._of_head(alone))
        return trainings

    def _of_head(self, alone: Training) -> Training:
        """The training of a last layer alone, in few views: the features of each are kept."""
        num_views = min(self.settings.teacher_head_views, alone.views.num_views or self.settings.teacher_head_views)
        return dataclasses.replace(alone, trains="head", views=dataclasses.replace(alone.views, num_views=num_views))

    def assistants(self) -> list[Training]:
        """The trainings of the assistants: like the student's, but from the teacher's seed: all students share them."""
        seed = teacher_seeds(self.settings)[0]
        trainings = []
        for number, (name, node) in enumerate(self.settings.assistants.items(), start=1):
            architecture = Architecture(f"assistants.{name}", name, node)
            alone = self._alone(numbered("assistant", number), architecture, "student", seed, seed)
            trainings.append(self._with_mode(alone))
        return trainings

    def students(self) -> list[Training]:
        """The trainings of the student, one for each repeat; the baselines' are the same without the mode.

        Repeats differ in their seeds alone: they see the same views, so that one logit bank serves all of them.
        """
        settings = self.settings
        assert settings.repeats is not None
        architecture = Architecture("student", settings.names.student, settings.student)
        trainings = []
        for repeat in range(settings.repeats):
            stage, seed = numbered("student", repeat + 1), settings.seed + repeat
            alone = self._alone(stage, architecture, "student", seed, settings.training.view_seed)
            trainings.append(self._with_mode(alone))
        return trainings

    def _alone(
        self, stage: str, architecture: Architecture, role: Literal["teacher", "student"], seed: int, view_seed: int
    ) -> Training:
        """The training of an architecture by the recipe of its role, with cross-entropy alone."""
        settings = self.settings
        dataset, recipe = settings.dataset, recipe_of(settings, role)
        assert dataset.mean is not None
        assert dataset.std is not None
        own_code = self.builder.code_hash(
            architecture.node, recipe.optimizer, recipe.schedule, *dataset.augment.values()
        )
        views = ViewChoice(view_seed, settings.training.views, recipe.mixup, recipe.cutmix)
        if not views.is_mixed and not self.feed.is_augmented:  # all views are one: the images as they are
            views = dataclasses.replace(views, seed=0, num_views=1)
        return Training(
            stage=stage,
            architecture=architecture,
            data=DataFacts(self.feed.content, len(self.feed.classes), dataset.mean, dataset.std, dataset.augment),
            views=views,
            sampling=dataset.sampling,
            recipe=recipe,
            recipe_key=f"training.{role}",
            select_by=settings.training.select_by,
            class_weights=class_weights(settings.training.class_weights, self.feed),
            seed=seed,
            device=settings.device,
            code=own_code,
            program=program_identity(),
            start=tuple(file_hash(path) for path in weight_files(architecture.node)),
        )

    def _with_mode(self, alone: Training) -> Training:
        """The same with the mode, and with the unlabelled images if there are any."""
        mode, name = self.settings.mode, self.settings.names.mode
        content = self.feed.unlabelled_content
        return dataclasses.replace(
            alone,
            data=dataclasses.replace(alone.data, unlabelled=content),
            views=dataclasses.replace(alone.views, with_unlabelled=content is not None),
            unlabelled_share=self.settings.dataset.unlabelled_share,
            mode=mode,
            mode_name=name,
            mode_code=self.builder.code_hash(*mode_nodes(mode)),
            top_k=self.settings.logit_bank_top_k,
        )


def teacher_files(settings: Settings) -> list[tuple[str, Path]]:
    """The files of the teachers that are trained already, with their stages."""
    paths = checkpoint_paths(settings)
    return [(numbered("teacher", number), path) for number, path in enumerate(paths, start=1)]


def untrained_teachers(settings: Settings) -> list[tuple[str, Architecture]]:
    """The teachers that are used with the weights that they bring, with their stages."""
    if settings.teacher_trains != "nothing":
        return []
    architectures = enumerate(_teacher_architectures(settings), start=len(checkpoint_paths(settings)) + 1)
    return [(numbered("teacher", number), architecture) for number, architecture in architectures]


def _teacher_architectures(settings: Settings) -> list[Architecture]:
    """Of the teachers that are not given as files."""
    options = {"teacher": settings.names.teacher}
    return [
        Architecture(key, options.get(key, key.removeprefix("more_teachers.")), dict(node))
        for key, node in teacher_nodes(settings).items()
    ]


def teacher_nodes(settings: Settings) -> dict[str, dict[str, Any]]:
    """The YAML of the teachers that are not given as files, by their keys."""
    first = {"teacher": settings.teacher} if settings.teacher_checkpoint is None else {}
    return first | {f"more_teachers.{name}": node for name, node in settings.more_teachers.items()}


def recipe_of(settings: Settings, role: Literal["teacher", "student"]) -> Recipe:
    """The recipe of a role, of complete settings."""
    recipe = settings.training.teacher if role == "teacher" else settings.training.student
    assert isinstance(recipe, Recipe)
    return recipe


def mode_nodes(mode: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The YAML of the mode's objective, and of those that its `also` adds."""
    return [mode, *mode.get("also", {}).values()]


def numbered(stage: str, number: int) -> str:
    """The name of the first, second, ... of several stages of one kind: teacher, teacher 2."""
    return stage if number == 1 else f"{stage} {number}"


def checkpoint_paths(settings: Settings) -> list[Path]:
    """The files of the teachers that are trained already."""
    given = settings.teacher_checkpoint
    return [Path(path) for path in ([given] if isinstance(given, str) else given or [])]


def teacher_seeds(settings: Settings) -> list[int]:
    """One seed, or one for each of several teachers of an architecture."""
    return settings.teacher_seed if isinstance(settings.teacher_seed, list) else [settings.teacher_seed]


def teacher_weights(settings: Settings, num_teachers: int) -> list[float]:
    """The weights of the teachers, whose sum is 1; raises UserError where there are not as many as teachers."""
    weights = settings.teacher_weights or [1.0] * num_teachers
    if len(weights) != num_teachers:
        raise user_error(
            f"teacher_weights has {counted(len(weights), 'number')}, the number of teachers is {num_teachers}",
            "write one for each: checkpoints first, then teacher=, then more_teachers=, each with all of its seeds",
        )
    return [weight / sum(weights) for weight in weights]
