"""Values of the command line: how they are read, compared, shown and sorted."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from distill_run.errors import show
from distill_run.fingerprints import canonical

CONSTANTS = {"null": None, "true": True, "false": False}

NaturalKey = list[tuple[bool, int, str]]


def read_value(text: str) -> Any:
    """The value of a text; texts that mean the same give equal values, as 4, 4.0 and 4e0 do."""
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
    """A value as one would type it, also within a list."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else show(value)


def natural(text: str) -> NaturalKey:
    """A sorting key for texts: numbers within them are sorted by size, 2 before 10, and come before letters."""
    key = []
    for part in re.split(r"(\d+)", text):
        if part.isdecimal():
            digits = part.lstrip("0")
            key.append((False, len(digits), digits or part))
        elif part:
            key.append((True, 0, part))
    return key


def order(value: Any) -> tuple[bool, float, NaturalKey]:
    """A sorting key for values of any kind: numbers first, then all others as texts."""
    is_text = isinstance(value, bool) or not isinstance(value, int | float)
    return is_text, 0.0 if is_text else value, natural(shown(value))


def setting_name(values: Mapping[str, Any]) -> str:
    """A setting in words: its short keys with their values."""
    names = short_keys(list(values))
    return ", ".join(f"{names[key]} {shown(value)}" for key, value in values.items()) or "the only setting"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last part, or the whole key where another key has the same last part."""
    ends = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(ends.values())
    return {key: end if counts[end] == 1 else key for key, end in ends.items()}
