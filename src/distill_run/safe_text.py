"""Texts that may come from files, such as names of classes, in a form that is safe where they are shown."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

# What moves a terminal's cursor, colours it or turns its text around; a line feed and a tab stay as they are.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
FORMULA = re.compile(r"[=+\-@\t\r]")  # what a cell begins with that a spreadsheet computes
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")
IN_ASCII = {"±": "+-", "\N{EN DASH}": "-", "…": "...", "→": "->", "≈": "~", "·": "|"}
ANY_TEXT = "distill_run.any_text"  # the name of the error handler


def for_terminal(text: str) -> str:
    r"""The text with control characters written out: an escape character is shown as \x1b."""
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as csv. A text that a spreadsheet would compute as a formula gets an apostrophe before it."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def write_out(text: str) -> None:
    """Write a text to stdout: as it is into a file or a pipe, without control characters to a terminal."""
    sys.stdout.write(for_terminal(text) if sys.stdout.isatty() else text)


def hold_any_text(stream: TextIO) -> None:
    """Let a stream of any encoding take every text: what it cannot hold is written with signs that it can.

    Bytes in the names of files that are no text are written as they are.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ANY_TEXT)


def _replace(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    written = [_bytes_of(character) for character in error.object[error.start : error.end]]
    return b"".join(written), error.end


def _bytes_of(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return character.encode(errors="surrogateescape")
    return IN_ASCII.get(character, character).encode("ascii", errors="backslashreplace")


codecs.register_error(ANY_TEXT, _replace)
