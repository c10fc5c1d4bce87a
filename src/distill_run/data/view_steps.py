"""From `dataset.augment` to the steps that make a view: a window of a photograph, then augmentations of the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from distill_run.build import Builder
from distill_run.data.augment import Augmentation, ViewStep
from distill_run.data.window import RandomResizedCrop
from distill_run.errors import gather, user_error

KEY = "dataset.augment"


@dataclass(frozen=True)
class ViewSteps:
    """The augmentations of an image by name, in order, and the window that is cut out of a photograph before them."""

    augmentations: Mapping[str, Augmentation]
    window: RandomResizedCrop | None = None

    @property
    def do_nothing(self) -> bool:
        """Whether all views of an image are equal."""
        return self.window is None and all(step.does_nothing for step in self.augmentations.values())


def build_steps(nodes: Mapping[str, Any], builder: Builder) -> ViewSteps:
    """The steps that `dataset.augment` describes; raises UserError with every mistake."""
    built = gather(partial(_build, name, node, builder) for name, node in nodes.items())
    named = dict(zip(nodes, built, strict=True))
    windows = {
        name: step for name, step in named.items() if isinstance(step, RandomResizedCrop) and not step.does_nothing
    }
    if len(windows) > 1:
        raise user_error(f"{KEY} has {len(windows)} windows: {', '.join(windows)}", "leave all but one out")
    augmentations = {name: step for name, step in named.items() if isinstance(step, Augmentation)}
    return ViewSteps(augmentations, next(iter(windows.values()), None))


def _build(name: str, node: Mapping[str, Any], builder: Builder) -> ViewStep:
    remedy = "derive the class from distill_run.data.augment.Augmentation"
    return builder.build_kind(ViewStep, remedy, node, f"{KEY}.{name}")
