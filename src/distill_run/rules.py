"""Rules: which values a parameter accepts. Constructors and the configuration's schema share them.

This module imports neither torch nor hydra, so that mistakes are found before either is loaded.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill_run.errors import RejectedValueError


@dataclass(frozen=True)
class Rule:
    """A test of a value and the words that say what passes it."""

    accepts: Callable[[Any], bool]
    words: str

    def check(self, name: str, value: object) -> None:
        """Raise RejectedValueError unless the rule accepts the value."""
        if not self.accepts(value):
            raise RejectedValueError(name, value, self.words)


class _Components(Rule):
    """Components by name: of a wrong one, its name is told and how to set an argument of it."""

    def check(self, name: str, value: object) -> None:
        """See Rule."""
        if isinstance(value, dict):
            for key in (key for key, component in value.items() if not COMPONENT.accepts(component)):
                words = f"{name}.{key}.ARGUMENT=VALUE, or {COMPONENT.words}"
                raise RejectedValueError(f"{name}.{key}", value[key], words)
        super().check(name, value)


class _Option(Rule):
    """A component that is chosen by the name of an option: a text instead of it is such a name, written with dots."""

    def check(self, name: str, value: object) -> None:
        """See Rule."""
        if TEXT.accepts(value):
            raise RejectedValueError(name, value, f"{name.replace('.', '/')}={value}, or {self.words}")
        super().check(name, value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def whole(least: int) -> Rule:
    """Whole numbers from `least` on."""
    return Rule(lambda v: _is_whole(v) and v >= least, f"a whole number of at least {least}")


def one_of(*choices: str | int) -> Rule:
    """One of a few words or numbers."""
    return Rule(
        lambda v: not isinstance(v, bool) and v in choices,  # True == 1 in Python
        "one of " + ", ".join(map(str, choices)),
    )


def optional(rule: Rule) -> Rule:
    """What `rule` accepts, or null."""
    return Rule(lambda v: v is None or rule.accepts(v), f"{rule.words}, or null")


def list_of(rule: Rule, words: str, least: int = 1) -> Rule:
    """Lists of at least `least` items, each accepted by `rule`."""
    return Rule(lambda v: isinstance(v, list) and len(v) >= least and all(rule.accepts(item) for item in v), words)


def one_or_several(rule: Rule) -> Rule:
    """What `rule` accepts, or a list of such values."""
    several = list_of(rule, "")
    return Rule(lambda v: rule.accepts(v) or several.accepts(v), f"{rule.words}, or a list of such")


SEED = Rule(lambda v: _is_whole(v) and 0 <= v < 2**63, "a whole number from 0 to 2^63 - 1")
POSITIVE = Rule(lambda v: is_number(v) and v > 0, "a number above 0")
NOT_NEGATIVE = Rule(lambda v: is_number(v) and v >= 0, "a number of at least 0")
FRACTION = Rule(lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
POSITIVE_FRACTION = Rule(lambda v: is_number(v) and 0 < v <= 1, "a number above 0, up to 1")
BELOW_ONE = Rule(lambda v: is_number(v) and 0 <= v < 1, "a number from 0 to below 1")
INSIDE_UNIT = Rule(lambda v: is_number(v) and 0 < v < 1, "a number between 0 and 1")
FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
STANDARDIZATION = Rule(lambda v: FLAG.accepts(v) or v == "sample", "true, false or sample")
TEXT = Rule(lambda v: isinstance(v, str) and v != "", "a text")
COMPONENT = Rule(
    lambda v: isinstance(v, dict) and isinstance(v.get("_target_"), str),
    "a mapping with a _target_ and the arguments of its constructor",
)
OPTION = _Option(COMPONENT.accepts, COMPONENT.words)
COMPONENTS = _Components(
    lambda v: isinstance(v, dict) and all(map(COMPONENT.accepts, v.values())), f"names, each with {COMPONENT.words}"
)
LEARNING_RATES = list_of(POSITIVE, "a list of learning rates above 0, as in [0.003,0.01,0.03,0.1]")
CHANNEL_MEANS = list_of(Rule(is_number, "a number"), "a list with a number for each channel")
CHANNEL_STDS = list_of(POSITIVE, "a list with a number above 0 for each channel")
NORMALISATION = Rule(
    lambda v: (
        v in ("dataset", "published")
        or (
            isinstance(v, list)
            and len(v) == 2
            and CHANNEL_MEANS.accepts(v[0])
            and CHANNEL_STDS.accepts(v[1])
            and len(v[0]) == len(v[1])
        )
    ),
    "dataset, published, or the means and standard deviations of the channels, as in [[0.5,0.5,0.5],[0.25,0.25,0.25]]",
)
OUTPUT = Rule(lambda v: whole(0).accepts(v) or TEXT.accepts(v), "an output: its index or its name")
TEACHER_CLASSES = Rule(
    lambda v: TEXT.accepts(v) or list_of(one_or_several(OUTPUT), "").accepts(v),
    "imagenet, a file, or a list with the teacher's output for each class, as in [tabby,beagle] or [[281,282],[162]]",
)
WEIGHTS = list_of(POSITIVE, "a list with a number above 0 for each teacher")
_CLASS_WEIGHTS = list_of(POSITIVE, "")
CLASS_WEIGHTS = Rule(
    lambda v: v == "balanced" or _CLASS_WEIGHTS.accepts(v), "balanced, or a list with a number above 0 for each class"
)
POINTS = list_of(TEXT, "a list of points of a network, as in [stages] or [pooled]")
WIDTHS = list_of(whole(1), "a list of whole numbers of at least 1, as in [16,32]")
HIDDEN_WIDTHS = list_of(whole(1), "a list of whole numbers of at least 1, as in [512], or []", least=0)

# Arguments that mean the same in all components of this program and of torch.optim.
VOCABULARY: dict[str, Rule] = {
    "temperature": POSITIVE,
    "alpha": FRACTION,
    "label_smoothing": BELOW_ONE,
    "lr": POSITIVE,
    "momentum": BELOW_ONE,
    "weight_decay": NOT_NEGATIVE,
    "dropout": BELOW_ONE,
    "warmup_epochs": NOT_NEGATIVE,
}


def component_rules(component: dict[str, Any]) -> dict[str, Rule]:
    """The rules for the arguments of a component that can be checked before the component is imported.

    Empty for a component of the user's own, whose constructor decides what it accepts.
    """
    if not str(component.get("_target_")).startswith(("distill_run.", "torch.")):
        return {}
    return {name: VOCABULARY[name] for name in component if name in VOCABULARY}
