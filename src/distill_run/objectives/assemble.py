"""Builds the objectives that a mode's YAML describes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from distill_run.build import Builder
from distill_run.errors import gather
from distill_run.objectives.base import Objective


def build_objectives(mode: Mapping[str, Any], builder: Builder) -> dict[str, Objective]:
    """The objective of the mode first, then those of its `also`; the keys are their names in the metrics.

    Raises UserError with the mistakes of all of them.
    """
    own = {name: value for name, value in mode.items() if name != "also"}
    added = mode.get("also", {})
    nodes = {"mode": own, **{f"mode.also.{name}": node for name, node in added.items()}}
    main, *others = gather(partial(builder.build, node, key) for key, node in nodes.items())
    return {main.part: main, **dict(zip(added, others, strict=True))}
