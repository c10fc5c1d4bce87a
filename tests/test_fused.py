"""Sweeps whose points train together, and repeats that do: they end as those that train one after the other."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY, InProcess, without_pages
from distill_run.commands.fused import group_of
from distill_run.commands.run import main
from distill_run.config.compose import compose
from distill_run.config.settings import compose_config
from distill_run.engine.stacked import StackedTaker
from killing import call, difference, outcome
from test_kill import EVERYTHING, KILLED, Killed, uninterrupted

pytestmark = pytest.mark.usefixtures("no_pages")

SMALL = (*TINY, "dataset.train_fraction=0.1", "training.student.batch_size=64", "hydra.sweep.dir=out")
SWEPT = ("mode.temperature=1,4", "seed=0,1")
FUSED = "hydra/launcher=fused"


def sweep(*words: str) -> None:
    sys.argv = ["distill-run", "-m", *SMALL, *words]
    main()


def finished(folder: Path, *words: str) -> dict[str, Any]:
    """What a sweep leaves in a folder of its own, in a process of its own."""
    assert call(folder, partial(sweep, *words)) == 0, folder.with_suffix(".out").read_text()
    return outcome(folder)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep whose points train one after the other."""
    folder = tmp_path_factory.mktemp("usual") / "sweep"
    with without_pages():
        finished(folder, *SWEPT)
    return folder


def table(folder: Path) -> list[list[str]]:
    """The table of a sweep without times."""
    header, *rows = [line.split(",") for line in (folder / "out" / "sweep.csv").read_text().splitlines()]
    times = [number for number, name in enumerate(header) if "seconds" in name]
    return [[cell for number, cell in enumerate(row) if number not in times] for row in (header, *rows)]


def test_a_fused_sweep_leaves_what_the_usual_one_leaves_also_after_a_kill(usual: Path, tmp_path: Path) -> None:
    """Killed when the students of all points train, each saves its state after each step."""
    whole = tmp_path / "whole"
    found = finished(whole, *SWEPT, FUSED)
    assert difference(found, outcome(usual)) is None
    assert table(whole) == table(usual)
    for number in range(4):
        student = Path("out", str(number), "checkpoints", "student.pt")
        assert (whole / student).read_bytes() == (usual / student).read_bytes()
    log = (whole / "out" / "2" / "run.log").read_text()
    assert [log.count(f" {stage} ") for stage in ("baseline   epoch", "student    epoch")] == [0, 2]

    work = partial(sweep, *SWEPT, FUSED, "checkpoint.every_minutes=1e-9")
    assert call(tmp_path / "cut", work, 170) == KILLED
    cut = [json.loads(path.read_text())["status"] for path in (tmp_path / "cut").glob("out/*/status.json")]
    assert cut == ["running"] * 4
    assert call(tmp_path / "cut", work) == 0
    assert difference(outcome(tmp_path / "cut"), outcome(usual)) is None


def test_a_point_that_fails_and_one_that_fits_no_other_do_no_harm(in_process: InProcess, tmp_path: Path) -> None:
    """Point 1 diverges, point 2 has another student, and so no share in what the others do together."""
    status, out, _ = in_process(
        main, "distill-run", "-m", *SMALL, FUSED, "baseline=false", "student.hidden=[8],[6]",
        "training.student.optimizer.lr=0.02,1e30",
    )  # fmt: skip
    assert status == 1
    told = {int(path.parent.name): json.loads(path.read_text()) for path in tmp_path.glob("out/*/status.json")}
    assert [told[number]["status"] for number in range(4)] == ["completed", "failed", "completed", "failed"]
    assert "the student's loss is not finite at epoch 1, step" in told[1]["error"]
    assert "2 of 4 runs completed, 2 failed" in out


def test_points_may_train_together_that_differ_in_a_students_own_keys() -> None:
    def group(*words: str) -> str:
        return group_of(compose([*TINY, *words]).config)

    own = ("seed=3", "mode=hard", "mode.temperature=2", "training.student.optimizer.lr=1", "training.student.ema=0.9")
    assert {group(word) for word in own} == {group()}
    others = ("student.hidden=[6]", "teacher=mlp", "training.student.epochs=3", "training.views=1", "teacher_seed=1")
    assert len({group(), *(group(word) for word in others)}) == 6


@pytest.mark.parametrize("way", ["in turn", "stacked"])
def test_repeats_that_train_together_end_as_those_that_do_not(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed three times; bit for bit in turn, also in the order of what is written."""
    settings = compose_config(EVERYTHING)
    whole = uninterrupted(tmp_path, EVERYTHING, settings)
    monkeypatch.setattr("distill_run.pipeline._at_once", lambda pairs, _: [pairs])
    if way == "stacked":
        monkeypatch.setattr("distill_run.stages.together.take_in_turn", StackedTaker(lambda *_: True))
    killed = Killed(tmp_path / "run", EVERYTHING, settings)
    for _ in range(3):
        assert killed(len(whole.writes) // 5) == KILLED
    problem = killed.problem(outcome(whole.folder))
    assert "together; the first is shown" in killed.said
    if way == "in turn":
        assert problem is None
    else:
        reports = [json.loads((each.folder / "out" / "report.json").read_text()) for each in (whole, killed)]
        assert len(reports[1]["repeats"]) == 2
        for repeat, expected in zip(reports[1]["repeats"], reports[0]["repeats"], strict=True):
            found = repeat["student"]["last"]["val"]["nll"]
            assert found == pytest.approx(expected["student"]["last"]["val"]["nll"], rel=1e-4)
