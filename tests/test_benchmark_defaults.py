"""The grid that shows whether the defaults need tuning: its cells, its verdicts, and one cell from end to end."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill_run.benchmarks import defaults, situations
from distill_run.benchmarks.situations import all_cells, make_photos
from distill_run.benchmarks.verdicts import Result, markdown
from distill_run.units import NONE
from helpers import message_of

CELL = "digits/few/cnn_small/soft,temperature=4,alpha=0.9"
TINY = ("--max-steps", "20", "--seeds", "0,1", "teacher=cnn_tiny", "device=cpu")


def result(
    students: Sequence[float],
    baselines: Sequence[float],
    failures: Sequence[str] = (),
    cell: str = CELL,
) -> Result:
    return Result(cell, "key", [0, 1, 2], 0.1, [*baselines], [*students], [*failures])


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder with two images in each of ten classes and both splits."""
    for split in ("train", "test"):
        for name in "abcdefghij":
            folder = tmp_path / "cifar" / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.full((32, 32, 3), 20 * index, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "cifar"


def test_the_grid_is_every_combination() -> None:
    cells = all_cells(with_search=False)
    # 5 data sets, 2 sizes, 6 students; 9 times soft, and the 15 modes that are not none.
    assert len(cells) == len(set(cells)) == 5 * 2 * 6 * (9 + 15)
    assert "seven/many/vit_tiny/soft,temperature=20,alpha=1" in cells
    assert "hundred/few/timm/review_kd" in cells
    assert len(all_cells(with_search=True)) == len(cells) + 5 * 2 * 6


def test_a_student_far_below_its_baseline_fails_only_beyond_the_noise() -> None:
    # Differences -0.04, -0.05, -0.06: mean -0.05, sd 0.01, half interval 4.303 * 0.01 / sqrt(3) = 0.0248.
    far = result([0.86, 0.85, 0.84], [0.9, 0.9, 0.9])
    assert far.row == [
        CELL,
        "10.00%",
        "90.00%",
        "85.00%",
        "-5.00 (-7.48 to -2.52)",
        "5.0 points below its baseline beyond the noise of its seeds",
    ]
    assert result([0.9, 0.85, 0.8], [0.9, 0.9, 0.9]).row[-2:] == ["-5.00 (-17.42 to +7.42)", "ok"]
    assert result([0.88, 0.88, 0.88], [0.9, 0.9, 0.9]).problem is None


def test_a_search_fails_where_the_default_is_three_points_below_the_best() -> None:
    searched = result([0.9, 0.85, 0.8], [0.9, 0.9, 0.9], cell="digits/few/cnn_small/search")
    assert searched.problem == "5.0 points below the best rate of the search"


def test_a_network_at_chance_fails_whatever_the_difference() -> None:
    failures = [f"the student: it is at chance ({share}% of its training images are right)" for share in (9, 11)]
    wrong = result([0.1, 0.1, 0.9], [0.1, 0.1, 0.1], [*failures, "the loss is nan"])
    assert wrong.problem == "the student: it is at chance (2 of 3 seeds); the loss is nan (1 of 3 seeds)"


def test_a_cell_whose_trainings_all_diverge_has_no_figures() -> None:
    assert result([], [], ["the loss is nan"] * 3).row[2:] == [NONE, NONE, NONE, "the loss is nan (3 of 3 seeds)"]


def test_the_worst_stand_first_in_the_table() -> None:
    well, close = (result([student] * 3, [0.9] * 3, cell=f"digits/few/x/{student}") for student in (0.95, 0.88))
    failed = result([0.99] * 3, [0.9] * 3, ["the teacher: it is at chance"])
    lines = markdown([well, close, failed])
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | --- |"
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [CELL, close.cell, well.cell]


def test_a_cell_is_trained_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--folder", str(tmp_path), "--cells", re.escape(CELL), *TINY]
    is_well = defaults.main(command)
    first = capsys.readouterr().out.splitlines()
    kept = json.loads((tmp_path / "results.jsonl").read_text())
    assert kept["cell"] == CELL
    assert kept["seeds"] == [0, 1]
    assert len(kept["students"]) == len(kept["baselines"]) == 2
    assert first[0] == "cell  chance  baseline  student  difference (95% interval)  verdict"
    baseline, student = (f"{50 * sum(kept[name]):.2f}%" for name in ("baselines", "students"))
    assert first[1].startswith(f"{CELL}  10.00%  {baseline}  {student}  ")
    assert first[-1] == f"{int(not is_well)} of 1 cells failed; the results are in {tmp_path / 'results.jsonl'}"
    # 229 images in batches of 16 are 14 steps an epoch: only one epoch fits into 20 steps.
    histories = list((tmp_path / "store").glob("*/*/metrics.jsonl"))
    assert sorted(path.parts[-3] for path in histories) == ["baseline", "baseline", "teacher"]
    assert [len(path.read_text().splitlines()) for path in histories] == [1, 1, 1]

    monkeypatch.setattr(defaults, "make_lineup", None)  # nothing is trained again
    assert defaults.main(command) is is_well
    assert capsys.readouterr().out.splitlines() == first


@pytest.mark.slow
def test_a_search_compares_the_default_rate_with_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "FACTORS", (1e6,))  # of a default that is far too small
    cell = ["--cells", "digits/many/cnn_small/search", "--search", "training.student.optimizer.lr=2e-9"]
    is_well = defaults.main(["--folder", str(tmp_path), *cell, *TINY, "--max-steps", "60"])
    kept = json.loads((tmp_path / "results.jsonl").read_text())
    assert not is_well
    assert min(kept["baselines"]) > 0.3 > max(kept["students"])
    assert kept["failures"]  # the default alone is watched
    rates = [path.read_text().split("lr: ")[1].split()[0] for path in tmp_path.glob("store/baseline/*/config.yaml")]
    assert len(rates) == 4  # two rates, two seeds
    assert len(set(rates)) == 2
    assert "/search  10.00%" in capsys.readouterr().out


def test_photographs_of_mixed_sizes_are_the_same_in_every_folder(tmp_path: Path, cifar: Path) -> None:
    sizes = []
    for name in ("first", "second"):
        make_photos("two", {"cifar10": cifar}, tmp_path / name)
        make_photos("two", {}, tmp_path / name)  # it is there already
        paths = sorted((tmp_path / name / "two").rglob("*.png"))
        assert len(paths) == 8
        sizes.append([size_of(path) for path in paths])
    assert sizes[0] == sizes[1]
    assert len(set(sizes[0])) == 8
    assert all(40 <= side <= 160 for size in sizes[0] for side in size)


def test_photographs_are_linked_where_they_keep_their_size(tmp_path: Path, cifar: Path) -> None:
    make_photos("ten", {"cifar10": cifar}, tmp_path / "work")
    assert (tmp_path / "work" / "ten" / "train" / "c" / "1.png").resolve() == cifar / "train" / "c" / "1.png"
    assert "dataset.train_fraction=0.1" in situations.overrides_of("ten/few/resnet8/hard", tmp_path)


def test_cells_without_their_photographs_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert defaults.main(["--list", "--cells", "(digits|seven)/few/resnet8/(hard|soft$)"])
    assert capsys.readouterr().out.splitlines() == [
        "warning: the cells of seven are left out: give --cifar100 DIR",
        "digits/few/resnet8/hard",
        "digits/few/resnet8/soft",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "3"], "--seeds=3 is not accepted\n  write two or more numbers, as in --seeds 0,1,2"),
        (["--seeds", "0,x"], "--seeds=0,x is not accepted\n  write two or more numbers, as in --seeds 0,1,2"),
        (
            ["--cells", "digits/search"],
            "--cells=digits/search leaves no cell\n  see the names with --list; --search adds DATA/.../search",
        ),
        (
            ["--cells", "("],
            "--cells=( is not a regular expression (missing ), unterminated subpattern at position 0)\n"
            "  write one such as --cells 'digits/.*/soft'",
        ),
        (
            ["--cifar100", "CIFAR"],
            "--cifar100=CIFAR: CIFAR/train has 10 class folders, not 100\n"
            "  give a folder with train/<class>/* and test/<class>/*, as in --cifar100 photos/cifar100",
        ),
        (
            ["--cifar10", "nowhere"],
            "--cifar10=nowhere: nowhere/train has 0 class folders, not 10\n"
            "  give a folder with train/<class>/* and test/<class>/*, as in --cifar10 photos/cifar10",
        ),
    ],
)
def test_mistakes_are_told_in_two_lines(words: list[str], message: str, cifar: Path) -> None:
    given = [word.replace("CIFAR", str(cifar)) for word in words]
    assert message_of(defaults.main, ["--list", *given]) == message.replace("CIFAR", str(cifar))
