"""What can stop a run: a mistake that the user can correct, a diverged training, an interruption."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, NoReturn, TypeVar

from distill_run.safe_text import for_terminal, hold_any_text

T = TypeVar("T")

MOST_TOLD = 5  # mistakes of one kind, such as files that cannot be read
INTERRUPTED = 130  # the usual exit status of a program that was stopped by Ctrl-C


class Mistake(NamedTuple):
    """One thing to correct: `what` is wrong (key and value), and the `remedy` (what to type instead)."""

    what: str
    remedy: str


class UserError(ValueError):
    """One or more mistakes of the user; the message has two lines for each."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(f"{what}\n  {remedy}" for what, remedy in self.mistakes))


def user_error(what: str, remedy: str) -> UserError:
    """The error for a single mistake."""
    return UserError([Mistake(what, remedy)])


def gather(attempts: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all attempts; if some fail, raises one UserError with all their mistakes, each of them once."""
    results: list[T] = []
    mistakes: dict[Mistake, None] = {}  # used as a set that keeps its order
    for attempt in attempts:
        try:
            results.append(attempt())
        except UserError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if mistakes:
        raise UserError(mistakes)
    return results


def refuse(mistakes: Sequence[Mistake], rest: str, remedy: str) -> None:
    """Raise UserError if there are mistakes: with the first of them, and how many more there are of what `rest` says.

    The `remedy` is that of the others.
    """
    if not mistakes:
        return
    told = list(mistakes[:MOST_TOLD])
    if (num := len(mistakes) - len(told)) > 0:
        told.append(Mistake(f"and {num:,} more {rest}", remedy))
    raise UserError(told)


def unknown_key(key: str, known: Iterable[str]) -> Mistake:
    """The mistake for a key that does not exist; the remedy names similar keys that do."""
    names = [name for name in known if not name.endswith("_target_")]  # nobody means the path of a class
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
    remedy = f"did you mean {' or '.join(near)}?" if near else "distill-run --help lists the keys"
    return Mistake(f"{key} is not a key of the configuration", remedy)


class RejectedValueError(UserError):
    """A value that its parameter does not accept; `under` adds the rest of the key, where it is known."""

    def __init__(self, name: str, value: object, accepted: str) -> None:
        self.name, self.value, self.accepted = name, value, accepted
        super().__init__([Mistake(f"{name}={show(value)} is not accepted", f"write {accepted}")])

    def under(self, key: str) -> "RejectedValueError":
        """The same error with a longer key, as in mode.temperature."""
        return RejectedValueError(f"{key}.{self.name}", self.value, self.accepted)


class DivergedError(UserError):
    """A loss is not a finite number; raised before the optimizer's step."""


class PrunedError(Exception):
    """A search stops a run early, because it is not promising."""


class LostProcessError(Exception):
    """Another process of the run has ended, so that this one cannot go on."""


class Interrupted(KeyboardInterrupt):
    """The user or the system asked the run to stop; a training in progress has saved its state.

    `written` says what a command has written, where that has to be said.
    """

    def __init__(self, *reason: str, written: str = "") -> None:
        self.written = written
        super().__init__(*reason)


def show(value: object) -> str:
    """A value as a user types it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextmanager
def interruptions() -> Iterator[None]:
    """Raise KeyboardInterrupt, not what another library made of it: Hydra takes one for a mistake in its files."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise KeyboardInterrupt from error
        raise


def leave(command: Callable[[], bool]) -> NoReturn:
    """Run a command and end the program with an exit status.

    The status is 0 if the command returns true, 1 if it returns false or raises a UserError or an OSError, which are
    told in two lines, and 130 after an interruption, which says what was written if it knows, and after a closed pipe
    (`| head`). With HYDRA_FULL_ERROR=1 an error is raised instead, for its traceback.
    """
    hold_any_text(sys.stdout)
    try:
        is_well = command()
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        sys.exit(INTERRUPTED)
    except (UserError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        tell(error if isinstance(error, UserError) else file_error(error))
        sys.exit(1)
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted) and stop.written:
            sys.stderr.write(f"interrupted: {for_terminal(stop.written)}\n")
        sys.exit(INTERRUPTED)
    sys.exit(0 if is_well else 1)


@contextmanager
def told_if_interrupted(written: str) -> Iterator[None]:
    """Let an interruption of the block say what was written, unless one within it has said it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted) and stop.written:
            raise
        raise Interrupted(*stop.args, written=written) from stop


def file_error(error: OSError) -> UserError:
    """The two lines for what the operating system refuses, with the file where it is known."""
    place = "a file or a stream" if error.filename is None else os.fspath(error.filename)
    return user_error(
        f"{place}: {error.strerror or first_line(error)}", "give files and folders that can be read, and written"
    )


def forget_stdout() -> None:
    """Let what is still to be written to a closed stdout go nowhere, or Python's last flush complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(error: UserError) -> None:
    """Print each mistake in two lines on stderr."""
    for what, remedy in error.mistakes:
        sys.stderr.write(for_terminal(f"error: {what}\n  {remedy}\n"))
