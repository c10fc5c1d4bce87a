"""Sweeps whose points train together, and repeats that do: they end as those that train one after the other.

All of it, for two minutes or so: python -m pytest -n0 -m "slow or not slow" tests/test_fused.py.
"""

import json
import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, InProcess, without_pages
from distill_run.commands import installed
from distill_run.commands.fused import group_of
from distill_run.config.compose import compose
from distill_run.config.settings import compose_config
from distill_run.engine.loop import Trainer
from distill_run.engine.stacked import StackedTaker
from distill_run.stages.sharing import SharedTeachers
from distill_run.stages.student import want_student
from killing import call, difference, outcome
from test_kill import EVERYTHING, KILLED, Killed, uninterrupted
from workshops import open_run

SMALL = (*TINY, "dataset.train_fraction=0.1", "training.student.batch_size=64", "hydra.sweep.dir=out")
SWEPT = ("mode.temperature=1,4", "seed=0,1")
FUSED = "hydra/launcher=fused"


def sweep(*words: str) -> None:
    sys.argv = ["distill-run", "-m", *SMALL, *words]
    installed.run()


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


def statuses(folder: Path) -> list[str]:
    """Those of the points of a sweep, in their order."""
    return [json.loads(path.read_text())["status"] for path in sorted(folder.glob("out/*/status.json"))]


def table(folder: Path) -> list[list[str]]:
    """The table of a sweep without times."""
    header, *rows = [line.split(",") for line in (folder / "out" / "sweep.csv").read_text().splitlines()]
    times = [number for number, name in enumerate(header) if "seconds" in name]
    return [[cell for number, cell in enumerate(row) if number not in times] for row in (header, *rows)]


@pytest.mark.slow
def test_a_fused_sweep_leaves_what_the_usual_one_leaves_also_after_a_kill(usual: Path, tmp_path: Path) -> None:
    """Killed where the last of its students, which train together, is about to save its first state."""
    whole = tmp_path / "whole"
    found = finished(whole, *SWEPT, FUSED)
    assert difference(found, outcome(usual)) is None
    assert table(whole) == table(usual)
    for number in range(4):
        student = Path("out", str(number), "checkpoints", "student.pt")
        assert (whole / student).read_bytes() == (usual / student).read_bytes()
    log = (whole / "out" / "2" / "run.log").read_text()
    assert [log.count(f" {stage} ") for stage in ("baseline   epoch", "student    epoch")] == [0, 2]

    writes = whole.with_suffix(".writes").read_text().splitlines()
    work = partial(sweep, *SWEPT, FUSED)
    moment = next(number for number, write in enumerate(writes) if "out/3/checkpoints/.last.pt" in write)
    assert call(tmp_path / "cut", work, moment) == KILLED
    assert statuses(tmp_path / "cut") == ["running"] * 4
    assert call(tmp_path / "cut", work) == 0
    assert difference(outcome(tmp_path / "cut"), outcome(usual)) is None


@pytest.mark.slow
def test_a_point_that_fails_and_one_that_fits_no_other_do_no_harm(in_process: InProcess, tmp_path: Path) -> None:
    """Point 1 diverges, point 2 has another student, and so no share in what the others do together."""
    status, out, _ = in_process(
        installed.run, "distill-run", "-m", *SMALL, FUSED, "baseline=false", "student.hidden=[8],[6]",
        "training.student.optimizer.lr=0.02,1e30",
    )  # fmt: skip
    assert status == 1
    assert statuses(tmp_path) == ["completed", "failed", "completed", "failed"]
    error = json.loads((tmp_path / "out" / "1" / "status.json").read_text())["error"]
    assert "the student's loss is not finite at epoch 1, step" in error
    assert "2 of 4 runs completed, 2 failed" in out


def test_points_may_train_together_that_differ_in_a_students_own_keys() -> None:
    def group(*words: str) -> str:
        return group_of(compose([*TINY, *words]).config)

    own = ("seed=3", "mode=hard", "mode.temperature=2", "training.student.optimizer.lr=1", "training.student.ema=0.9")
    assert {group(word) for word in own} == {group()}
    others = ("student.hidden=[6]", "teacher=mlp", "training.student.epochs=3", "training.views=1", "teacher_seed=1")
    assert len({group(), *(group(word) for word in others)}) == 6


def test_at_least_one_point_trains_at_once(in_process: InProcess) -> None:
    status, _, err = in_process(
        installed.run, "distill-run", "-m", *SMALL, FUSED, "hydra.launcher.at_once=0", "seed=0,1"
    )
    assert status == 1
    assert err == "error: hydra.launcher.at_once=0 is not accepted\n  write a whole number of at least 1\n"


def test_asked_to_stop_all_points_that_train_together_save_their_states(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("distill-run", "-m", *SMALL, FUSED, "baseline=false", "mode.temperature=1,2,4")
    end_step = Trainer.end_step

    def stopping(self: Trainer, *arguments: Any) -> None:
        end_step(self, *arguments)
        if self.learner.stage == "student" and (self.epoch, self.step) == (2, 1):
            monkeypatch.undo()
            monkeypatch.chdir(tmp_path)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "end_step", stopping)
    status, out, _ = in_process(installed.run, *words)
    assert (status, statuses(tmp_path)) == (130, ["interrupted"] * 3)
    assert "interrupted; the same command goes on with it" in out
    for number in range(3):
        point = torch.load(tmp_path / "out" / str(number) / "checkpoints" / "last.pt", weights_only=True)
        assert (point["stage"], point["trainer"]["epoch"], point["trainer"]["step"]) == ("student", 2, 1)
    assert in_process(installed.run, *words)[0] == 0
    assert statuses(tmp_path) == ["completed"] * 3


def test_students_of_one_teacher_have_one_guide_and_one_teacher_in_memory(tmp_path: Path) -> None:
    wanted = []
    for bank in ("8", "0"):
        opened = [open_run(tmp_path, [*SMALL[:-1], f"logit_bank_gigabytes={bank}"]) for _ in range(2)]
        teachers, shared = [each.teacher() for each in opened], SharedTeachers()
        for each, teacher in zip(opened, teachers, strict=True):
            wanted.append(shared.of(want_student(each.lineup.student, teacher, each.workshop, nullcontext)))
        ours, theirs = (teacher.network.state_dict() for teacher in teachers)
        assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
    guides = [each.prepared.guide for each in wanted]
    assert guides[0] is guides[1]
    assert guides[2] is guides[3]
    assert guides[0] is not guides[2]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in turn", "stacked"])
def test_repeats_that_train_together_end_as_those_that_do_not(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed three times; in turn, bit for bit."""
    settings = compose_config(EVERYTHING)
    whole = uninterrupted(tmp_path, EVERYTHING, settings)
    monkeypatch.setattr("distill_run.pipeline._at_once", lambda pairs, _: [pairs])
    if way == "stacked":
        monkeypatch.setattr("distill_run.stages.together.take_in_turn", StackedTaker(lambda *_: True))
    killed = Killed(tmp_path / "run", EVERYTHING, settings)
    for _ in range(3):
        assert killed(len(whole.writes) // 5) == KILLED
    assert killed() == 0
    assert "baseline, baseline 2 train together; the first is shown" in killed.said
    if way == "in turn":
        found, expected = outcome(killed.folder), outcome(whole.folder)
        for each in (found, expected):  # baselines come before students
            each["out/metrics.jsonl"].sort(key=lambda row: (row["stage"], row["epoch"]))
            each["out/report.json"]["warnings"].sort()
        assert difference(found, expected) is None
    else:
        reports = [json.loads((each.folder / "out" / "report.json").read_text()) for each in (whole, killed)]
        assert len(reports[1]["repeats"]) == 2
        for repeat, expected in zip(reports[1]["repeats"], reports[0]["repeats"], strict=True):
            found = repeat["student"]["last"]["val"]["nll"]
            assert found == pytest.approx(expected["student"]["last"]["val"]["nll"], rel=1e-4)
