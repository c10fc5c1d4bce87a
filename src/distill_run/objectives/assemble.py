"""From the mode's YAML to its objectives."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from distill_run.build import Builder
from distill_run.errors import gather
from distill_run.objectives.base import Objective


def build_objectives(mode: Mapping[str, Any], builder: Builder) -> dict[str, Objective]:
    """The objective of the mode, and those that its `also` adds, by the names of their parts in the record.

    Raises UserError with the mistakes of all of them.
    """
    own = {name: value for name, value in mode.items() if name != "also"}
    nodes = {"mode": own, **{f"mode.also.{name}": node for name, node in mode.get("also", {}).items()}}
    main, *others = gather(partial(builder.build, node, key) for key, node in nodes.items())
    return {main.part: main, **dict(zip(mode.get("also", {}), others, strict=True))}
