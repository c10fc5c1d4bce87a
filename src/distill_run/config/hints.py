"""What a person may mean who names a key that does not exist, or one that the chosen option lacks."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from distill_run.config.compose import ROLES, Composed, compose, load_options
from distill_run.config.overrides import COMPOSITION_ERRORS, keys_of
from distill_run.errors import Mistake

MANY_OPTIONS = 12  # of more than these, only some are told


def known_keys(overrides: Sequence[str], extra_dir: Path | None) -> list[str]:
    """All keys of the configuration of these overrides, or of the usual configuration where they do not compose."""
    try:
        return list(all_keys(compose(overrides, extra_dir).config))
    except COMPOSITION_ERRORS:
        return list(all_keys(compose().config))


def all_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The keys of a node and of all nodes below it, as one types them."""
    for name in keys_of(node):
        yield f"{prefix}{name}"
        if isinstance(node[name], DictConfig):
            yield from all_keys(node[name], f"{prefix}{name}.")


def meant_overrides(name: str, value: str, known: Iterable[str]) -> str:
    """The overrides that give `value` to what `name` may mean: to mode.temperature, if it is temperature.

    Empty where the name is no short form of a known key.
    """
    keys = ROLES.get(name) or [key for key in known if _is_short_for(name, key)]
    nearest = sorted(keys, key=lambda key: key.count("."))[:MANY_OPTIONS]
    return " or ".join(f"{key}={shlex.quote(value)}" for key in nearest)


def _is_short_for(name: str, key: str) -> bool:
    """Whether a key ends as the name does and has all its parts in their order, as training.student.epochs has."""
    wanted, parts = name.split("."), iter(key.split("."))
    return not name.startswith("_") and key.endswith(wanted[-1]) and all(part in parts for part in wanted)


def missing_argument(key: str, text: str, base: Composed, extra_dir: Path | None) -> Mistake | None:
    """The mistake where the chosen option lacks a key that other options of its group have, as hard has no temperature.

    `text` is the override of that key. None where no option has such a key.
    """
    choices: dict[str, Any] = dict(base.hydra.runtime.choices)
    groups = [group for group in choices if key.startswith(f"{group.replace('/', '.')}.")]
    if not groups:
        return None
    group = max(groups, key=len)
    argument = key.removeprefix(f"{group.replace('/', '.')}.")
    having = [name for name, node in load_options(group, extra_dir).items() if argument in node]
    if not having:
        return None
    others = " or ".join(f"{group}={name}" for name in having[:MANY_OPTIONS])
    return Mistake(f"{group}={choices[group]} has no {argument}", f"leave {text} out, or write {others}")
