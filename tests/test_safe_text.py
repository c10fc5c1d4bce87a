"""Texts of strangers on a terminal and in a spreadsheet, and texts that an output cannot hold."""

import io
import sys
from collections.abc import Callable

import pytest

from conftest import InProcess
from distill_run.console.console import Console
from distill_run.errors import Interrupted, leave, told_if_interrupted, user_error
from distill_run.safe_text import csv_lines, for_terminal, hold_any_text, write_out


def test_a_terminal_gets_no_control_characters() -> None:
    text = "a\x1b[31mred\x07\x9b2J\u202ecba\x7f\n\tZürich 猫"
    assert for_terminal(text) == r"a\x1b[31mred\x07\x9b2J\u202ecba\x7f" + "\n\tZürich 猫"


@pytest.mark.parametrize(
    "show", [lambda text: Console().note(text), lambda text: Console().table([text], [[text]], num_texts=1)]
)
def test_the_console_writes_them_out(show: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    show("cat\x1b]0;title\x07")
    assert r"cat\x1b]0;title\x07" in capsys.readouterr().out


def test_data_are_left_alone_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_out("a\x1b[0m\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_out("a\x1b[0m\n")
    assert capsys.readouterr().out == "a\x1b[0m\n" + r"a\x1b[0m" + "\n"


def test_a_spreadsheet_computes_no_cell() -> None:
    rows: list[list[object]] = [
        ["=1+1", "+cmd", "-x.jpg", "@home", "\tx"],
        ["-1.5", "+49", "1e-3", "a=b", -0.25],
        ["-5%", "", None, "'", "ü"],
    ]
    assert csv_lines(rows) == "'=1+1,'+cmd,'-x.jpg,'@home,'\tx\n-1.5,+49,1e-3,a=b,-0.25\n-5%,,,',ü\n"


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", rb"97% +- 0.4 -> ... - Z\xfcrich \u732b " + b"caf\xe9\n"),
        ("latin-1", b"97% \xb1 0.4 -> ... - Z\xfcrich " + rb"\u732b " + b"caf\xe9\n"),
        ("cp1252", b"97% \xb1 0.4 -> \x85 \x96 Z\xfcrich " + rb"\u732b " + b"caf\xe9\n"),
        ("utf-8", "97% ± 0.4 → … \N{EN DASH} Zürich 猫 caf".encode() + b"\xe9\n"),
    ],
)
def test_an_output_of_any_encoding_takes_every_text(encoding: str, written: bytes) -> None:
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding=encoding)
    hold_any_text(stream)
    stream.write("97% ± 0.4 → … \N{EN DASH} Zürich 猫 caf\udce9\n")  # the last is a byte of a file's name
    stream.flush()
    assert file.getvalue() == written


def raising(error: BaseException) -> Callable[[], bool]:
    def act() -> bool:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (user_error("a\x1b[0m=1", "write b"), 1, "error: a\\x1b[0m=1\n  write b\n"),
        (
            PermissionError(13, "Permission denied", "/x/y"),
            1,
            "error: /x/y: Permission denied\n  give files and folders that can be read, and written\n",
        ),
        (
            OSError("no number"),
            1,
            "error: a file or a stream: no number\n  give files and folders that can be read, and written\n",
        ),
        (BrokenPipeError(32, "Broken pipe"), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted("SIGTERM"), 130, ""),
        (Interrupted("SIGTERM", written="x.csv was not written"), 130, "interrupted: x.csv was not written\n"),
    ],
)  # fmt: skip
def test_a_command_ends_in_two_lines(
    error: BaseException, status: int, told: str, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.dup2", lambda *_: None)  # the stdout of the tests stays open
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    assert in_process(lambda: leave(raising(error))) == (status, "", told)


def test_the_innermost_block_says_what_was_written() -> None:
    with pytest.raises(Interrupted) as caught, told_if_interrupted("outer"), told_if_interrupted("inner"):
        raise KeyboardInterrupt
    assert caught.value.written == "inner"
