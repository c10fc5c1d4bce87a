"""Texts as a person can type them: quoted for Hydra's grammar of overrides, then for the shell."""

import re
import shlex
from collections.abc import Iterable

from distill_run.errors import user_error

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_WORDS = ("null", "true", "false")


def for_omegaconf(text: str) -> str:
    r"""The text with `${` written as `\${`, so that OmegaConf reads no interpolation there."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def for_hydra(text: str) -> str:
    r"""A text as the value of an override: quoted, unless Hydra reads it as this text anyway.

    Between quotes Hydra leaves everything as it is, but for quotes and for backslashes right before them. Raises
    UserError for a line break, and for ???, which OmegaConf takes for a missing value.
    """
    if "\n" in text or "\r" in text or text == "???":
        raise user_error(f"{text!r} cannot be written on a command line", "give another name, without a line break")
    if _PLAIN.fullmatch(text) and not _is_number(text) and text.lower() not in _WORDS:
        return text
    return quoted(for_omegaconf(text))


def quoted(text: str) -> str:
    r"""The text between quotes; `${...}` in it stays an interpolation."""
    quote = "'" if '"' in text and "'" not in text else '"'
    escaped = re.sub(rf"(\\*)({quote}|\Z)", lambda found: found[1] * 2 + (found[2] and f"\\{quote}"), text)
    return f"{quote}{escaped}{quote}"


def override(key: str, text: object) -> str:
    """The override that gives a key this text."""
    return f"{key}={for_hydra(str(text))}"


def typed(key: str, text: object) -> str:
    """The same override as one types it in a shell."""
    return f"{key}={shlex.quote(for_hydra(str(text)))}"


def bracketed(texts: Iterable[str]) -> str:
    """A list of texts as the value of an override."""
    return f"[{','.join(map(for_hydra, texts))}]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
