"""What can stop a run: a mistake that the user can mend, a diverged training, an interruption."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn, TypeVar

T = TypeVar("T")

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C has ended


class Mistake(NamedTuple):
    """One thing to mend: `what` is wrong (key and value), and the `remedy` (what to type instead)."""

    what: str
    remedy: str


class UserError(ValueError):
    """One or more mistakes of the user, each told in two lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(f"{what}\n  {remedy}" for what, remedy in self.mistakes))


def user_error(what: str, remedy: str) -> UserError:
    """The error of a single mistake."""
    return UserError([Mistake(what, remedy)])


def gather(attempts: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all attempts; raises one UserError with the mistakes of all that fail, each told once."""
    results: list[T] = []
    mistakes: dict[Mistake, None] = {}  # a set that keeps its order
    for attempt in attempts:
        try:
            results.append(attempt())
        except UserError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if mistakes:
        raise UserError(mistakes)
    return results


def unknown_key(key: str, known: Iterable[str]) -> Mistake:
    """The mistake of a key that does not exist, with the nearest ones that do."""
    near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.6)
    remedy = f"did you mean {' or '.join(near)}?" if near else "distill-run --help lists the keys"
    return Mistake(f"{key} is not a key of the configuration", remedy)


class RejectedValueError(UserError):
    """A value outside what its parameter accepts; whoever knows the parameter's full key adds it."""

    def __init__(self, name: str, value: object, accepted: str) -> None:
        self.name, self.value, self.accepted = name, value, accepted
        super().__init__([Mistake(f"{name}={show(value)} is not accepted", f"write {accepted}")])

    def under(self, key: str) -> "RejectedValueError":
        """The same error with the parameter's name prefixed, as in mode.temperature."""
        return RejectedValueError(f"{key}.{self.name}", self.value, self.accepted)


class DivergedError(UserError):
    """A loss that is not a finite number; raised before the optimizer's step."""


class PrunedError(Exception):
    """A search gives up a run that is not promising."""


class Interrupted(KeyboardInterrupt):
    """The user (or the system) asked the run to stop, and everything that a resume needs is saved."""


def show(value: object) -> str:
    """A value as one would type it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def leave(command: Callable[[], bool]) -> NoReturn:
    """Run a command and end the program: with 0 where it returns true, otherwise 1; with 130 after an interruption.

    A mistake is told, and ends it with 1; with HYDRA_FULL_ERROR=1 it is raised instead, for its traceback.
    """
    try:
        is_well = command()
    except UserError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        tell(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0 if is_well else 1)


def tell(error: UserError) -> None:
    """Print each mistake in two lines on stderr."""
    for what, remedy in error.mistakes:
        sys.stderr.write(f"error: {what}\n  {remedy}\n")
