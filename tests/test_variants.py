"""Command lines that share the reading of their files get what Hydra makes of each."""

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from distill_run.config.compose import compose, new_variants, plain_config
from distill_run.config.overrides import all_points, points_to_check
from distill_run.config.overrides import parse as parse_overrides
from distill_run.config.variants import Variants

POINTS = (
    ["mode=soft", "seed=0", "mode.temperature=1", "training.student.optimizer.lr=0.1"],
    ["mode=soft", "seed=1", "mode.temperature=2.5", "training.student.optimizer.lr=1e-3"],
    ["mode=hard", "seed=1"],
    ["mode=hard", "seed=null"],
    ["seed=2", "mode=soft", "dataset.root='a, b = c'"],
    ["seed=3", "mode=soft", "dataset.root=x"],
    ["mode.temperature=4", "mode.alpha=0.1", "mode={alpha:0.7}"],  # the last one counts
    ["mode.temperature=4", "mode.alpha=0.2", "mode={alpha:0.7}"],
    ["student=mlp", "student.hidden=[4,8]", "seed=4", "seed=5"],
    ["student=mlp", "student.hidden=[4,8]", "seed=6", "seed=7"],
    ["+student.more=1", "hydra.sweep.dir=a", "hydra.job.config.override_dirname.kv_sep=_", "seed=8"],
    ["+student.more=1", "hydra.sweep.dir=a", "hydra.job.config.override_dirname.kv_sep=_", "seed=9"],
    ["~mode.alpha", "seed=9"],
    ["seed=10", "baseline=${measure_speed}"],
    ["seed=11", "baseline=${measure_speed}"],
)


def content(overrides: Sequence[str], variants: Variants) -> dict[str, Any]:
    """All of a composition that does not name the time."""
    composed = compose(overrides, None, variants)
    hydra = plain_config(composed.hydra, resolve=False)
    name = str(composed.hydra.job.override_dirname)
    return {"config": plain_config(composed.config), "hydra": hydra, "dirname": name, "overrides": composed.overrides}


def test_the_outcome_is_that_of_composing_each_alone() -> None:
    whole, shared = [], new_variants()
    for point in POINTS:
        whole.append(content(point, new_variants()))
    assert [content(point, shared) for point in POINTS] == whole
    assert [content(point, shared) for point in reversed(POINTS)] == whole[::-1]


def test_points_that_differ_in_values_are_read_once() -> None:
    composed: list[list[str]] = []

    def compose_whole(overrides: list[str]) -> Any:
        composed.append(overrides)
        return compose_of_hydra(overrides)

    compose_of_hydra = new_variants()._compose_whole
    variants = Variants(compose_whole)
    command = ["mode=soft,hard", "seed=range(5)", "training.student.optimizer.lr=0.1,0.2"]
    points = list(all_points(command))
    seeds = [compose(point, None, variants).config.seed for point in points]
    assert seeds == 2 * [seed for seed in range(5) for _ in (0.1, 0.2)]
    assert [point[0] for point in composed] == ["mode=soft", "mode=hard"]
    assert len(list(points_to_check(parse_overrides(command)))) == 7  # each value once


def test_mistakes_are_those_of_hydra() -> None:
    variants = new_variants()
    compose(["mode=soft", "mode.temperature=2"], None, variants)
    for point in (["mode=hard", "mode.temperature=2"], ["mode=soft", "mode.temprature=2"], ["mode=sift"]):
        with pytest.raises(Exception) as alone:  # noqa: PT011 - whatever Hydra raises
            compose(point)
        with pytest.raises(type(alone.value)) as shared:
            compose(point, None, variants)
        assert str(shared.value) == str(alone.value)
    with pytest.raises(ConfigCompositionException):
        compose(["mode=hard", "mode.temperature=2"], None, variants)


def test_what_is_composed_may_be_changed() -> None:
    variants = new_variants()
    first = compose(["seed=1"], None, variants)
    OmegaConf.update(first.config, "mode.temperature", 99)
    assert compose(["seed=1"], None, variants).config.mode.temperature != 99
    assert compose(["seed=2"], None, variants).overrides == ["seed=2"]


def test_they_can_be_sent_to_another_process() -> None:
    variants = new_variants()
    variants.prepare(["seed=1"])
    sent = pickle.loads(pickle.dumps(variants))
    sent._compose_whole = None
    assert sent.compose(["seed=2"]).seed == 2


def test_of_two_overrides_of_a_key_the_later_one_counts() -> None:
    assert list(all_points(["seed=1,2", "mode=soft", "seed=3,4"])) == [["seed=3", "mode=soft"], ["seed=4", "mode=soft"]]
