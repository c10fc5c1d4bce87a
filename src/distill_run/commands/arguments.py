"""The arguments of the commands; mistakes in them are told as all others are, in two lines."""

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from distill_run.config.hints import known_keys, meant_overrides
from distill_run.errors import Mistake, UserError, user_error

OPTIONS = ("help", "version", "info")  # people write these without the dashes

ABOUT_TRUST = "run the code that a run brings, or a .pt2 file: only for what comes from you or someone you trust"


class Parser(argparse.ArgumentParser):
    """An argument parser that knows --version, and raises UserError instead of ending the program."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.register("type", Path, _path)
        version = f"{self.prog} {metadata.version('distill-run')}"
        self.add_argument("--version", action="version", version=version, help="show the version and exit")

    def error(self, message: str) -> NoReturn:
        """Raise the mistake together with the usage."""
        self.color = False  # Python 3.14 would colour the usage on a terminal
        usage = " ".join(self.format_usage().split())
        raise user_error(message, f"write {usage.removeprefix('usage: ')}")


def _path(text: str) -> Path:
    """The path of an argument; of --output=~/x, the shell leaves the ~ to us."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text} is in the home directory of nobody") from error


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of distill-run: its own options, and those of Hydra's that it hands on.

    Raises UserError for every option that it does not know, for two options that exclude each other, and for a key and
    a value that are two words.
    """
    arguments, unknown = _parser().parse_known_intermixed_args(words)
    check_config_dir(arguments.config_dir)
    # The values of unknown options are words without = as well.
    mistakes = list(_not_options(unknown, words, arguments) if unknown else _bare_words(arguments))
    if mistakes:
        raise UserError(mistakes)
    if arguments.config_path or arguments.config_name:
        raise user_error(
            "distill-run has a configuration of its own: --config-path and --config-name cannot change it",
            "put your files into groups below a folder, and write --config-dir DIR",
        )
    return arguments


def _parser() -> Parser:
    """Hydra's documented options, with --help and --version of our own."""
    parser = Parser(prog="distill-run", usage="distill-run [OPTION ...] [KEY=VALUE ...]", add_help=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("-h", "--help", action="store_true")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("-r", "--run", action="store_true")
    modes.add_argument("-m", "--multirun", action="store_true")
    modes.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    kinds = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    modes.add_argument("-i", "--info", nargs="?", const="all", choices=kinds)
    modes.add_argument("-sc", "--shell-completion", action="store_true")
    modes.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-p", "--package", metavar="PACKAGE")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", type=Path)
    parser.add_argument("-cp", "--config-path", metavar="DIR")
    parser.add_argument("-cn", "--config-name", metavar="NAME")
    return parser


def _not_options(unknown: Sequence[str], words: Sequence[str], arguments: argparse.Namespace) -> Iterator[Mistake]:
    """The mistakes for unknown options; the remedy is the override that was meant, key=value for `--key value`."""
    for option in unknown:
        if not option.startswith("-"):  # the value of the option before it
            continue
        name, sign, value = option.lstrip("-").partition("=")
        if not sign:
            follower = words[words.index(option) + 1 :][:1]
            is_value = bool(follower) and "=" not in follower[0] and not follower[0].startswith("-")
            value = follower[0] if is_value else "VALUE"
        yield Mistake(
            f"{option} is not an option of distill-run", f"write {_whole(name.replace('-', '_'), value, arguments)}"
        )


def _bare_words(arguments: argparse.Namespace) -> Iterator[Mistake]:
    """The mistakes for words without =: a key and its value that stand side by side, as in `mode soft`, and others."""
    words = iter(itertools.pairwise([*arguments.overrides, "="]))
    for word, follower in words:
        if not _is_bare(word):
            continue
        if _is_bare(follower):
            yield Mistake(f"{word} {follower} has no =", f"write {_whole(word, follower, arguments)}")
            next(words, None)  # the value is the key of no other pair
        elif word in OPTIONS:
            yield Mistake(f"{word} has no =", f"write distill-run --{word}")
        else:
            yield Mistake(f"{word} has no =", "write key=value; distill-run --help lists the keys")


def _is_bare(word: str) -> bool:
    return "=" not in word and not word.startswith("~")


def _whole(key: str, value: str, arguments: argparse.Namespace) -> str:
    """The override that gives a value to a key, whose name may be a short one, as temperature is."""
    overrides = [word for word in arguments.overrides if not _is_bare(word)]
    known = known_keys(overrides, arguments.config_dir)
    return (key not in known and meant_overrides(key, value, known)) or f"{key}={shlex.quote(value)}"


def check_config_dir(folder: Path | None) -> None:
    """Raise UserError where --config-dir names something that is not a folder."""
    if folder is not None and not folder.is_dir():
        raise user_error(f"--config-dir {folder} is not a folder", "give the folder of your own files")


def hydra_words(arguments: argparse.Namespace) -> list[str]:
    """The options that Hydra needs to show what the arguments ask for."""
    words = []
    if arguments.cfg:
        words += ["--cfg", arguments.cfg]
    if arguments.info:
        words += ["--info", arguments.info]
    if arguments.package:
        words += ["--package", arguments.package]
    if arguments.config_dir:
        words += ["--config-dir", str(arguments.config_dir)]
    for name in ("resolve", "shell_completion", "hydra_help"):
        if getattr(arguments, name):
            words.append(f"--{name.replace('_', '-')}")
    return words


@contextmanager
def arguments_for_hydra(words: Sequence[str]) -> Iterator[None]:
    """Let Hydra, which reads sys.argv, find these words there for the time of the block."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def full_errors() -> Iterator[None]:
    """Let Hydra, which reads HYDRA_FULL_ERROR, raise errors during the block; otherwise it prints them and exits."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
