"""Paths as people type them: with ~, and with names that Hydra's grammar takes for something else."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from distill_run.config.overrides import parse_or_none
from distill_run.errors import user_error
from distill_run.quoting import for_omegaconf, quoted, typed

# The keys that name files or folders; the second ones may also name a list of them.
SINGLE = (
    "store_dir",
    "resume",
    "code_dir",
    *(f"dataset.{name}" for name in ("root", "train", "val", "test", "unlabelled")),
)
SEVERAL = ("teacher_checkpoint", "teacher_classes")
HYDRAS = ("hydra.run.dir", "hydra.sweep.dir")


def home(key: str, path: str) -> str:
    """A path in which a leading ~ is the home directory; raises UserError for that of a user who is not there."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        what = f"{key}={path} is in the home directory of nobody"
        raise user_error(what, f"write the whole path, or {typed(key, f'./{path}')}") from error


def at_home(config: DictConfig) -> DictConfig:
    """The same configuration; ~ is written out in the keys that name files or folders."""
    for key in (*SINGLE, *SEVERAL):
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, for_omegaconf(home(key, value)))
        elif isinstance(value, ListConfig) and any(str(each).startswith("~") for each in value):
            OmegaConf.update(config, key, [for_omegaconf(home(key, str(each))) for each in value])
    return config


def readable(words: Sequence[str], multirun: bool) -> list[str]:
    """The overrides of a command line, with quotes around values that Hydra cannot read, or does not read as paths.

    So `dataset.root=fotos (2024)` and `store_dir=2024` are texts, as a person means them. In a multirun, commas
    separate values. Raises UserError for a line break, which no printed command could repeat.
    """
    for word in words:
        if "\n" in word or "\r" in word:
            raise user_error(f"{word!r} has a line break", "give a name without one")
    return [word if _is_readable(word, multirun) else _with_quotes(word, multirun) for word in words]


def _is_readable(word: str, multirun: bool) -> bool:
    head, _, text = word.partition("=")
    key = head.lstrip("+")
    parsed = parse_or_none(word)
    if parsed is None or text == "" or key not in (*SINGLE, *SEVERAL, *HYDRAS):
        return parsed is not None
    if parsed.is_sweep_override():
        return multirun or not _is_there(text)
    value = parsed.value()
    return value is None or isinstance(value, str) or (isinstance(value, list) and key in SEVERAL)


def _with_quotes(word: str, multirun: bool) -> str:
    """The override with its value, or with each of several values, between quotes, if Hydra can read that."""
    head, sign, text = word.partition("=")
    pieces = text.split(",") if multirun and not _is_there(text) else [text]
    whole = f"{head}={','.join(_piece(head, piece, len(pieces) == 1) for piece in pieces)}"
    return whole if sign and parse_or_none(whole) is not None else word


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no such user, too long, or a zero byte
        return False


def _piece(head: str, piece: str, is_only: bool) -> str:
    return quoted(piece) if is_only or parse_or_none(f"{head}={piece}") is None else piece
