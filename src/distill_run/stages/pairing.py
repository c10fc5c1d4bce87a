"""Fitting a loss to two networks: what learns, which features are compared, and how large they are."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from distill_run.errors import Mistake, UserError, user_error
from distill_run.models.ensemble import Ensemble
from distill_run.models.features import choose_points, feature_points, read_shapes
from distill_run.models.network import Network
from distill_run.objectives.base import FeatureObjective, Objective, Pair, ReplacesStudent
from distill_run.stages.training import Bench, Plan, make_network

Points = dict[str, str]  # places of features by their names


def pair_up(plan: Plan, teacher: Network | Ensemble, teacher_node: dict[str, Any], bench: Bench) -> tuple[Plan, Points]:
    """Fit every objective of a plan's loss to both networks; returns the plan completed, and the teacher's points.

    Raises UserError, which names the objective, where the two cannot be paired.
    """
    readers = {name: term for name, term in plan.loss.terms.items() if isinstance(term, FeatureObjective)}
    if not readers:
        return plan, {}
    for name, term in readers.items():
        with _named(name, term, bench):
            single = _single(teacher)
            if isinstance(term, ReplacesStudent):
                node, given = term.student_node(plan.node, teacher_node), term.given_weights(single.architecture)
                plan = dataclasses.replace(plan, node=node, given={**plan.given, **given})
    student = make_network(plan.node, plan.key, plan.seed, bench)
    points: tuple[Points, Points] = {}, {}
    for name, term in readers.items():
        with _named(name, term, bench):
            for known, found in zip(points, _fit(term, student, single, plan.seed, bench), strict=True):
                known.update(found)
    return dataclasses.replace(plan, points=points[0]), points[1]


@contextmanager
def _named(name: str, term: Objective, bench: Bench) -> Iterator[None]:
    """Let the mistakes of the block name the objective and its keys."""
    try:
        yield
    except UserError as error:
        is_main = name == term.part
        option, key = (bench.settings.names.mode, "mode.") if is_main else (name, f"mode.also.{name}.")
        raise UserError(
            Mistake(f"mode={option}: {what}", remedy.replace("mode.", key)) for what, remedy in error.mistakes
        ) from error


def _single(teacher: Network | Ensemble) -> Network:
    if isinstance(teacher, Ensemble):
        raise user_error(
            f"it compares features, and there are {len(teacher.members)} teachers",
            "give one teacher, or choose a mode that works from logits, as mode=soft",
        )
    return teacher


def _fit(term: FeatureObjective, student: Network, teacher: Network, seed: int, bench: Bench) -> tuple[Points, Points]:
    """Fit an objective that reads features; returns the places of those in both networks."""
    ours = choose_points(term.student_points, feature_points(student, bench.shape), student, "student")
    theirs = choose_points(term.teacher_points, feature_points(teacher, bench.shape), teacher, "teacher")
    if len(ours) != len(theirs):
        if not all(any(word.startswith("stages") for word in words) for words in _words(term)):
            raise user_error(
                f"{len(ours)} points of the student and {len(theirs)} of the teacher do not make pairs",
                "name as many in mode.student_points as in mode.teacher_points",
            )
        shared = min(len(ours), len(theirs))  # paired from the deepest on, where both are closest to a decision
        ours, theirs = _last(ours, shared), _last(theirs, shared)
    term.student_points, term.teacher_points = list(ours), list(theirs)
    pair = Pair(
        list(read_shapes(student, ours, bench.shape).values()),
        list(read_shapes(teacher, theirs, bench.shape).values()),
        bench.dataset.train.targets,
        bench.shape.num_classes,
        seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        term.fit_to(pair)
    return ours, theirs


def _words(term: FeatureObjective) -> tuple[list[str], list[str]]:
    return term.student_points, term.teacher_points


def _last(points: Mapping[str, str], count: int) -> Points:
    return dict(list(points.items())[-count:])
