"""What the terminal shows: tables that fit it, and signs of life where no line can be overwritten."""

from types import SimpleNamespace

import pytest
import torch

from distill_run.console.console import Console
from distill_run.console.displays import show_training
from distill_run.report.cells import NETWORK_COLUMNS
from distill_run.report.results import SPARE

Output = pytest.CaptureFixture[str]

HEADINGS = ["", *NETWORK_COLUMNS.values()]
ROWS = [
    ["teacher cnn_large", "98.44%", "99.78%", "0.061", "0.012", "1,204,874", "31.2M", "4.82MB", "0:13 (reused)"],
    ["baseline mobilenet_v2", "95.33%", "99.56%", "0.164", "0.021", "812,810", "4.1M", "3.25MB", "4.1s"],
]


def table_in(width: int, capsys: Output, headings: list[str], rows: list[list[str]], spare: tuple[str, ...]) -> str:
    console = Console()
    console.rich.width = width
    console.table(headings, rows, num_texts=1, spare=spare)
    return capsys.readouterr().out


def test_a_narrow_table_leaves_the_least_important_columns_out(capsys: Output) -> None:
    least = {120: set(), 100: set(), 80: {"size", "MACs"}, 60: {"size", "MACs", "top-5", "nll", "ece"}}
    for width, left_out in least.items():
        blank, headings, *rows = table_in(width, capsys, HEADINGS, ROWS, SPARE).splitlines()
        assert blank == ""
        assert max(map(len, rows)) <= width
        shown = [index for index, heading in enumerate(HEADINGS) if heading not in left_out]
        assert headings.split() == " ".join(HEADINGS[index] for index in shown).split()
        assert [row.split() for row in rows] == [" ".join(row[index] for index in shown).split() for row in ROWS]


def test_the_columns_stand_below_their_headings(capsys: Output) -> None:
    assert table_in(30, capsys, ["", "acc", "size"], [["one", "98.44%", "3B"], ["four", "5%", "12B"]], ()) == (
        "\n         acc  size\none   98.44%    3B\nfour      5%   12B\n"
    )


def test_a_table_that_cannot_be_narrow_enough_is_shown_line_by_line(capsys: Output) -> None:
    headings, rows = ["student", "augment [x]", "change"], [["torchvision_mobilenet", "crop", "+1.20"]]
    assert table_in(30, capsys, headings, rows, ("change",)) == (
        "\nstudent torchvision_mobilenet\naugment [x] crop\nchange +1.20\n\n"
    )


def test_without_a_live_line_a_long_epoch_is_told_twice_a_minute(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 31.0, 31.0, 40.0, 62.0, 62.0])
    monkeypatch.setattr("distill_run.console.displays.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with show_training(Console(), "student", 2, 100) as display:
        for step in range(1, 5):
            display.stepped(1, step, 64, torch.tensor(0.5))
    # After 31 s two steps are done, 198 are left; after 62 s four.
    assert capsys.readouterr().out.splitlines() == [
        "student    epoch   1/2  loss 0.500  4 images/s  51:09 left",
        "student    epoch   1/2  loss 0.500  4 images/s  50:38 left",
    ]


def epochs_shown(capsys: Output, stage: str, num_epochs: int, last: int) -> list[int]:
    with show_training(Console(), stage, num_epochs, 10) as display:
        for epoch in range(1, last + 1):
            display.epoch_ended(
                {
                    "epoch": epoch, "train": {"loss": 1.0}, "val": {"accuracy": 0.5}, "images_per_second": 9.0,
                    "learning_rate": 0.1, "data_share": 0.0,
                }
            )  # fmt: skip
    return [int(line.split("epoch")[1].split("/")[0]) for line in capsys.readouterr().out.splitlines()]


def test_about_ten_epochs_of_a_training_are_shown_and_always_the_last(capsys: Output) -> None:
    assert epochs_shown(capsys, "student", 3, 3) == [1, 2, 3]
    assert epochs_shown(capsys, "student", 36, 36) == [1, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert epochs_shown(capsys, "student", 36, 18) == [1, 4, 8, 12, 16, 18]  # patience ended it
    assert epochs_shown(capsys, "student 2", 36, 36) == [36]
