"""Fitting a loss to two networks: which features are compared, and how large they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from distill_run.data.feed import Feed
from distill_run.errors import Mistake, UserError, user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.features import choose_points, feature_points, read_shapes
from distill_run.models.network import Network
from distill_run.objectives.base import FeatureObjective, Objective, Pair
from distill_run.objectives.total import TotalLoss
from distill_run.stages.training import Training

Points = dict[str, str]  # places of features by their names


def pair_up(
    loss: TotalLoss, training: Training, student: Network, teacher: Network | Ensemble | None, feed: Feed
) -> tuple[Points, Points]:
    """Fit every objective that reads features to both networks; returns the points of the student and of the teacher.

    Raises UserError, which names the objective, where the two cannot be paired.
    """
    student_points: Points = {}
    teacher_points: Points = {}
    for name, term in loss.terms.items():
        if isinstance(term, FeatureObjective):
            with naming_the_option(training, name, term):
                ours, theirs = _fit(term, student, single(teacher), training.seed, feed)
            student_points.update(ours)
            teacher_points.update(theirs)
    return student_points, teacher_points


@contextmanager
def naming_the_option(training: Training, name: str, term: Objective) -> Iterator[None]:
    """Let the mistakes of the block name the mode and its keys."""
    try:
        yield
    except UserError as error:
        is_main = name == term.part
        option, key = (training.mode_name, "mode.") if is_main else (name, f"mode.also.{name}.")
        raise UserError(
            Mistake(f"mode={option}: {what}", remedy.replace("mode.", key)) for what, remedy in error.mistakes
        ) from error


def single(teacher: Network | Ensemble | None) -> Network:
    """The teacher, where it is one; raises UserError where there are several, whose features have no mean."""
    if isinstance(teacher, Ensemble):
        raise user_error(
            f"it compares features, and there are {len(teacher.members)} teachers",
            "give one teacher, or choose a mode that works from logits, as in mode=soft",
        )
    assert teacher is not None
    return teacher


def _fit(term: FeatureObjective, student: Network, teacher: Network, seed: int, feed: Feed) -> tuple[Points, Points]:
    """Fit an objective to both networks; returns the places of the features that it reads."""
    shape = feed.shape
    ours = choose_points(term.student_points, feature_points(student, shape), student, "student")
    theirs = choose_points(term.teacher_points, feature_points(teacher, shape), teacher, "teacher")
    if len(ours) != len(theirs):
        if not (_names_stages(term.student_points) and _names_stages(term.teacher_points)):
            raise user_error(
                f"{len(ours)} points of the student and {len(theirs)} of the teacher do not make pairs",
                "name as many in mode.student_points as in mode.teacher_points",
            )
        shared = min(len(ours), len(theirs))  # paired from the deepest on, where both are closest to a decision
        ours, theirs = _last(ours, shared), _last(theirs, shared)
    term.student_points, term.teacher_points = list(ours), list(theirs)
    pair = Pair(
        list(read_shapes(student, ours, shape).values()),
        list(read_shapes(teacher, theirs, shape).values()),
        feed.train.targets,
        shape.num_classes,
        seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        term.fit_to(pair)
    return ours, theirs


def _names_stages(words: list[str]) -> bool:
    return any(word.startswith("stages") for word in words)


def _last(points: Mapping[str, str], count: int) -> Points:
    return dict(list(points.items())[-count:])
