"""Mistakes in the user's own code: each is told in two lines, with the file and the line in which it happened."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill_run.errors import PrunedError, UserError, first_line, user_error
from distill_run.out_of_memory import is_out_of_memory
from distill_run.units import shown_path

PROGRAM = Path(__file__).parent.resolve()
LIBRARIES = "site-packages"  # a virtual environment may lie inside the user's folder
WHOLE = "HYDRA_FULL_ERROR=1 shows how it was reached"


@contextmanager
def naming_own_code(folder: Path | None, but: type[Exception] = UserError) -> Iterator[None]:
    """Turn what goes wrong in the Python files of a folder into a UserError that names file and line.

    Exceptions of the class `but` stay as they are, those with which this program stops a run, and lack of memory, for
    which the code is not to blame.
    """
    try:
        yield
    except (UserError, PrunedError, but):
        raise
    except Exception as error:
        if is_out_of_memory(error) or (place := place_in(error, folder)) is None:
            raise
        raise user_error(f"{place}: {type(error).__name__}: {first_line(error)}", f"mend that line; {WHOLE}") from error


def place_in(error: BaseException, folder: Path | None) -> str | None:
    """The file and the line of a folder in which an exception was raised, or passed last; None if it was elsewhere."""
    if folder is None:
        return None
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        places.append((error.filename, error.lineno or 1))
    for name, line in reversed(places):
        path = Path(name).resolve()
        if path.is_relative_to(folder.resolve()) and not path.is_relative_to(PROGRAM) and LIBRARIES not in path.parts:
            return f"{shown_path(Path(name))}, line {line}"
    return None
