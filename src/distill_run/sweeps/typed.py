"""The commands of runs as records: which keys they set, to what, and what repeats them."""

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from distill_run.errors import show
from distill_run.store import canonical

IGNORED = {"code_dir", "resume", "store_dir", "sweep"}  # these, and Hydra's own, change no figure
NOT_REPEATED = {"resume", "sweep"}
DEFAULT = "default"  # the value of a key that a run does not set, and whose configuration does not tell it
REMOVED = "removed"  # what ~key does to it
CONSTANTS = {"null": None, "true": True, "false": False}


@dataclass(frozen=True)
class Command:
    """A command line: as it was typed, its options with their values, its overrides."""

    text: str
    options: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def values(self) -> dict[str, Any]:
        """The keys that may change a figure, each with its value in canonical form."""
        pairs = map(_read_override, self.words)
        return {key: value for key, value in pairs if key not in IGNORED and not _is_hydras(key)}


def read_command(text: str) -> Command:
    """The command line of a run's environment.json; raises ValueError where its quotes do not close."""
    options: list[str] = []
    words: list[str] = []
    rest = iter(shlex.split(text)[1:])
    for word in rest:
        if word in ("--config-dir", "-cd"):
            options += [word, next(rest, "")]
        elif word.startswith("-"):
            options.append(word)
        else:
            words.append(word)
    return Command(text, tuple(options), tuple(words))


def _read_override(word: str) -> tuple[str, Any]:
    key, _, text = word.lstrip("+~").partition("=")
    return key, REMOVED if word.startswith("~") else read_value(text)


def _is_hydras(key: str) -> bool:
    return re.match(r"hydra\b", key) is not None


def read_value(text: str) -> Any:
    """A typed value in the form that is equal for what means the same: 4, 4.0 and 4e0 are one."""
    if not text.startswith(("[", "{", "'", '"')):
        return canonical(_read_scalar(text))
    try:
        return canonical(_read_scalars(yaml.load(text, yaml.BaseLoader)))  # BaseLoader leaves every scalar a text
    except (yaml.YAMLError, RecursionError):
        return text


def _read_scalars(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _read_scalars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_scalars(item) for item in value]
    return _read_scalar(value)


def _read_scalar(text: str) -> Any:
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text


def shown(value: Any) -> str:
    """A value as one would type it, in a list too."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else show(value)


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A sorting key in which numbers within a text count as numbers, 2 before 10, and come before letters."""
    parts = [part for part in re.split(r"(\d+)", text) if part]
    digits = [part.lstrip("0") if part.isdecimal() else "" for part in parts]
    return [(not part.isdecimal(), len(kept), kept or part) for part, kept in zip(parts, digits, strict=True)]


def order(value: Any) -> tuple[bool, float, list[tuple[bool, int, str]]]:
    """A sorting key of any values: numbers first, then all else as texts."""
    is_text = isinstance(value, bool) or not isinstance(value, int | float)
    return is_text, 0.0 if is_text else value, natural(shown(value))


def repeat(commands: Sequence[Command], replicates: Sequence[dict[str, Any]]) -> str:
    """What repeats the runs of one setting; `replicates` holds each run's values of the keys that tell them apart.

    One run repeats by its own command, several by one multirun where they are a full grid of their values,
    otherwise by a line each.
    """
    choices = {key: _distinct(values[key] for values in replicates) for key in replicates[0]}
    grid = [list(point) for point in itertools.product(*choices.values())]
    typed = [[shown(value) for value in values.values()] for values in replicates]
    cannot_be_typed = any(text in (DEFAULT, REMOVED) for texts in choices.values() for text in texts)
    if len(commands) == 1 or cannot_be_typed or sorted(grid) != sorted(typed):
        return "\n".join(command.text for command in commands)
    first = commands[0]
    kept = [word for word in first.words if not _is_replaced(word, choices)]
    varied = [f"{key}={','.join(texts)}" for key, texts in choices.items()]
    return shlex.join(["distill-run", *first.options, "-m", *kept, *varied])


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(shown(value) for value in sorted(values, key=order)))


def _is_replaced(word: str, keys: Iterable[str]) -> bool:
    key, _ = _read_override(word)
    return key in keys or key in NOT_REPEATED or _is_hydras(key)
