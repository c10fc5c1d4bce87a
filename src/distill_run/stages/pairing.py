"""Fitting objectives that read features to the two networks: which points are compared, and how large they are."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

from distill_run.errors import UserError, user_error
from distill_run.models.features import choose_points, feature_points, read_shapes
from distill_run.models.network import Network
from distill_run.objectives.base import Objective, Pair
from distill_run.objectives.total import TotalLoss
from distill_run.stages.training import Bench


class Points(NamedTuple):
    """The places of the features that a loss reads, by their names."""

    student: dict[str, str]
    teacher: dict[str, str]


def pair_up(loss: TotalLoss, student: Network, teacher: Network, seed: int, bench: Bench) -> Points:
    """Fit every objective to the networks, of which only shapes are taken; returns the points that they read.

    Raises UserError, which names the objective, where the networks cannot be paired.
    """
    points = Points({}, {})
    for name, term in loss.terms.items():
        if term.needs == "features":
            try:
                own = _fit(term, copy.deepcopy(student), copy.deepcopy(teacher), seed, bench)
            except UserError as error:
                option = bench.settings.names.mode if name == term.part else name
                raise UserError(m._replace(what=f"mode={option}: {m.what}") for m in error.mistakes) from error
            points.student.update(own.student)
            points.teacher.update(own.teacher)
    return points


def _fit(term: Objective, student: Network, teacher: Network, seed: int, bench: Bench) -> Points:
    ours = choose_points(term.student_points, feature_points(student, bench.shape), student, "student")
    theirs = choose_points(term.teacher_points, feature_points(teacher, bench.shape), teacher, "teacher")
    if len(ours) != len(theirs):
        if not ("stages" in term.student_points and "stages" in term.teacher_points):
            raise user_error(
                f"{len(ours)} points of the student and {len(theirs)} of the teacher do not make pairs",
                "name as many in mode.student_points as in mode.teacher_points",
            )
        shared = min(len(ours), len(theirs))  # paired from the deepest on, where both are closest to a decision
        ours, theirs = _last(ours, shared), _last(theirs, shared)
    term.student_points, term.teacher_points = list(ours), list(theirs)
    term.fit_to(
        Pair(
            list(read_shapes(student, ours, bench.shape).values()),
            list(read_shapes(teacher, theirs, bench.shape).values()),
            bench.dataset.train.targets,
            bench.shape.num_classes,
            seed,
        )
    )
    return Points(ours, theirs)


def _last(points: Mapping[str, str], count: int) -> dict[str, str]:
    return dict(list(points.items())[-count:])
