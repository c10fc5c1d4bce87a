"""Builds the objectives that a mode's YAML describes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from distill_run.build import Builder
from distill_run.errors import gather, user_error
from distill_run.objectives.base import Objective
from distill_run.rules import COMPONENTS

METRICS = ("loss", "accuracy", "cross_entropy")  # the metrics of every training


def build_objectives(mode: Mapping[str, Any], builder: Builder) -> dict[str, Objective]:
    """The objective of the mode first, then those of its `also`; the keys are their names in the metrics.

    Raises UserError with the mistakes of all of them.
    """
    own = {name: value for name, value in mode.items() if name != "also"}
    added = mode.get("also", {})
    COMPONENTS.check("mode.also", added)
    nodes = {"mode": own, **{f"mode.also.{name}": node for name, node in added.items()}}
    main, *others = gather(partial(_build, node, key, builder) for key, node in nodes.items())
    gather(partial(_check_name, name, main.part) for name in added)
    return {main.part: main, **dict(zip(added, others, strict=True))}


def _build(node: Mapping[str, Any], key: str, builder: Builder) -> Objective:
    bases = "TargetObjective, LogitObjective or FeatureObjective of distill_run.objectives.base"
    return builder.build_kind(Objective, f"derive the class from {bases}", node, key)  # type: ignore[type-abstract]


def _check_name(name: object, main_part: str) -> None:
    """Raise UserError for a name that another metric has, or that nn.ModuleDict does not accept."""
    is_name = isinstance(name, str) and name != "" and "." not in name
    if not is_name or name in (*METRICS, main_part) or hasattr(nn.ModuleDict(), str(name)):
        raise user_error(
            f"mode.also.{name}: {name} cannot be the name of an added objective",
            "choose another name; for a file of conf/mode, that is the name of the file",
        )
