"""The command lines of runs: which keys they set, to which values, and the command that repeats several of them."""

import itertools
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from distill_run.sweeps.values import order, read_value, shown

# These, and Hydra's own keys, change no figure of a sweep.
IGNORED = {
    "code_dir",
    "export",
    "export_int8",
    "measure_speed",
    "resume",
    "robustness_images",
    "store_dir",
    "sweep",
    "tracker",
}
NOT_REPEATED = {"resume", "sweep"}
DEFAULT = "default"  # the value of a key that neither the command nor the configuration of a run has
REMOVED = "removed"  # the value of a key after ~key


@dataclass(frozen=True)
class CommandLine:
    """A command line: its text, its options with their values, and its overrides."""

    text: str
    options: tuple[str, ...]
    overrides: tuple[str, ...]

    @cached_property
    def values(self) -> dict[str, Any]:
        """The keys that may change a figure, with their values in the form of `read_value`."""
        found = {}
        for override in self.overrides:
            key, value = _read_override(override)
            if key not in IGNORED and not _is_hydras(key):
                found[key] = value
        return found


def read_command_line(text: str) -> CommandLine:
    """The command line in the `command` of environment.json; raises ValueError where a quote is not closed."""
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(shlex.split(text)[1:])
    for word in rest:
        if word in ("--config-dir", "-cd"):
            options += [word, next(rest, "")]
        elif word.startswith("-"):
            options.append(word)
        else:
            overrides.append(word)
    return CommandLine(text, tuple(options), tuple(overrides))


def _read_override(override: str) -> tuple[str, Any]:
    key, _, text = override.lstrip("+~").partition("=")
    return key, REMOVED if override.startswith("~") else read_value(text)


def _is_hydras(key: str) -> bool:
    return re.match(r"hydra\b", key) is not None


def repeat(commands: Sequence[CommandLine], replicates: Sequence[Mapping[str, Any]]) -> str:
    """The command that repeats the runs of one setting.

    `replicates` holds, for each run, the values of the keys that tell the runs apart, as in {"seed": 0}. One run is
    repeated by its own command. Several runs are repeated by one multirun if it gives exactly these runs, otherwise by
    a command for each.
    """
    choices = {key: _distinct([values[key] for values in replicates]) for key in replicates[0]}
    if len(commands) == 1 or not _is_multirun(choices, replicates):
        return "\n".join(command.text for command in commands)
    kept = [override for override in commands[0].overrides if not _is_replaced(override, choices)]
    varied = [f"{key}={','.join(texts)}" for key, texts in choices.items()]
    return shlex.join(["distill-run", *commands[0].options, "-m", *kept, *varied])


def _distinct(values: Sequence[Any]) -> list[str]:
    """The different values as one types them, sorted."""
    return list(dict.fromkeys(shown(value) for value in sorted(values, key=order)))


def _is_multirun(choices: Mapping[str, Sequence[str]], replicates: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a multirun over these choices gives exactly these replicates: all combinations, each once."""
    for texts in choices.values():
        if DEFAULT in texts or REMOVED in texts:  # such a value cannot be typed
            return False
    combinations = sorted(itertools.product(*choices.values()))
    return combinations == sorted(tuple(map(shown, values.values())) for values in replicates)


def _is_replaced(override: str, varied_keys: Collection[str]) -> bool:
    """Whether the override is left out of the multirun: its key is varied, or must not be repeated."""
    key, _ = _read_override(override)
    return key in varied_keys or key in NOT_REPEATED or _is_hydras(key)
