"""Killed anywhere, a run goes on, and its end is that of an uninterrupted one, bit for bit.

All of it, for an hour or so: python -m pytest -n0 -m slow tests/test_kill.py. With DISTILL_RUN_KILL_STEP=6, every sixth
write of the runs that are killed at their writes.
"""

import dataclasses
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo  # noqa: F401 - each forked process would load it
from filelock import FileLock

from conftest import TINY, write_photos
from distill_run.commands import installed
from distill_run.commands.runner import run_alone
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.files import RunFiles
from distill_run.pipeline import run
from killing import call, difference, end_of, kill_after, outcome, start

# All that has a state of its own: a search, an assistant, repeats, views, a moving average; saved after every step.
EVERYTHING = (
    *(*TINY, "dataset.train_fraction=0.1", "training.teacher.batch_size=64", "training.student.batch_size=64"),
    *("repeats=2", "assistants=mlp", "assistants.mlp.hidden=[8]", "training.views=2", "training.student.ema=0.9"),
    *("training.student.lr_search=[0.01,0.1]", "robustness_images=10", "checkpoint.every_minutes=1e-9"),
)
# Photographs that two processes read, new views in every epoch, an export.
PHOTOS = (
    *(word for word in TINY if not word.startswith(("dataset.", "training.student.batch", "training.teacher.batch"))),
    *("dataset=image_folder", "dataset.root=../photos", "dataset.image_size=8", "dataset.memory_gigabytes=0"),
    *("dataset.workers=2", "training.teacher.batch_size=8", "training.student.batch_size=8", "export=safetensors"),
    "checkpoint.every_minutes=1e-9",
)
# Each of the two processes loads torch.
SWEEP = (
    *(
        "distill-run",
        "-m",
        *TINY,
        "training.student.epochs=20",
        "checkpoint.every_minutes=1e-3",
        "mode.temperature=1,2,3",
    ),
    *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=out"),
)
# The seventh trial is the first that Optuna could give up; every trial but the first reuses the teacher.
SEARCH = (
    *("distill-search", *TINY, "training.student.epochs=6", "checkpoint.every_minutes=1e-3"),
    *("mode.temperature=interval(1,9)", "training.student.optimizer.lr=tag(log,interval(1e-5,1))"),
    *("--trials=8", "--search-dir=out"),
)
COMMANDS = {"distill-run": installed.run, "distill-search": installed.search}
KILLED = -signal.SIGKILL
MOMENTS = 50
STEP = int(os.environ.get("DISTILL_RUN_KILL_STEP", "1"))


class Killed:
    """A run in folder/out that is killed and goes on, from settings or by its command."""

    def __init__(self, folder: Path, words: Sequence[str], settings: Settings | None = None) -> None:
        self.folder, self.words, self.settings = folder, words, settings

    def begin_or_go_on(self) -> None:
        """What a person does: resume= where there is a checkpoint, otherwise the same command."""
        goes_on = Path("out/checkpoints/last.pt").exists()
        if self.settings is None:
            sys.argv = ["distill-run", "resume=out"] if goes_on else [*self.words]
            COMMANDS[sys.argv[0]]()
        else:
            run(dataclasses.replace(self.settings, resume="out" if goes_on else None), "out")

    def __call__(self, kill_at: int | None = None) -> int:
        return call(self.folder, self.begin_or_go_on, kill_at)

    def after(self, seconds: float) -> int:
        """Killed after so much time, unless it has ended."""
        return kill_after(seconds, self.folder, self.begin_or_go_on)

    def problem(self, expected: dict[str, Any]) -> str | None:
        """What is wrong at the end, after it has gone on."""
        return self.said if self() else difference(outcome(self.folder), expected)

    @property
    def said(self) -> str:
        return self.folder.with_suffix(".out").read_text()

    @property
    def writes(self) -> list[str]:
        return self.folder.with_suffix(".writes").read_text().splitlines()


def uninterrupted(folder: Path, words: Sequence[str], settings: Settings | None = None) -> Killed:
    whole = Killed(folder / "whole", words, settings)
    assert whole() == 0, whole.said
    return whole


def test_a_run_that_is_killed_again_and_again_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = compose_config(EVERYTHING)
    whole = uninterrupted(tmp_path, EVERYTHING, settings)
    killed = Killed(tmp_path / "run", EVERYTHING, settings)
    for _ in range(3):
        assert killed(len(whole.writes) // 5) == KILLED
    assert killed.problem(outcome(whole.folder)) is None


def test_two_commands_that_go_on_with_a_run_take_turns(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    settings = compose_config([*TINY, "dataset.train_fraction=0.1"])
    begin = partial(run_alone, settings, Path("out"), "")
    assert call(whole, begin) == 0
    writes = whole.with_suffix(".writes").read_text().splitlines()
    saved = [number for number, write in enumerate(writes) if "os.rename out/checkpoints/.last.pt" in write]
    assert call(folder, begin, kill_at=saved[-1]) == KILLED

    said = folder.with_suffix(".out")
    go_on = partial(run_alone, dataclasses.replace(settings, resume="out"), Path("out"), "")
    with FileLock(RunFiles(folder / "out").lock):
        both = [start(folder, go_on) for _ in range(2)]
        while said.read_text().count("out is being written by another process; waiting for that\n") < 2:
            time.sleep(0.05)
    assert [end_of(process) for process in both] == [0, 0]
    assert said.read_text().count("the run is completed; its report is out/report.html\n") == 1
    assert difference(outcome(folder), outcome(whole)) is None


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("words", [EVERYTHING, PHOTOS], ids=["everything", "photos"])
def test_a_run_that_is_killed_at_any_write_ends_like_an_uninterrupted_one(words: Sequence[str], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    settings = compose_config(words)
    whole = uninterrupted(tmp_path, words, settings)
    expected, found = outcome(whole.folder), {}
    for write in range(0, len(whole.writes), STEP):
        killed = Killed(tmp_path / f"{write}", words, settings)
        assert killed(write) == KILLED
        found[f"{write} {whole.writes[write]}"] = killed.problem(expected)
        shutil.rmtree(killed.folder)
    assert {write: problem for write, problem in found.items() if problem} == {}


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "words",
    [["distill-run", *EVERYTHING, "hydra.run.dir=out"], SWEEP, SEARCH],
    ids=["run", "sweep", "search"],
)
def test_a_command_that_is_killed_at_random_moments_ends_like_an_uninterrupted_one(
    words: Sequence[str], tmp_path: Path
) -> None:
    """From its first moment to its last, also while its pages are written; a moment may come after the end."""
    begun = time.monotonic()
    whole = uninterrupted(tmp_path, words)
    seconds, drawn = time.monotonic() - begun, random.Random(13)
    expected, found, kills = outcome(whole.folder), {}, 0
    for moment in range(MOMENTS):
        after = seconds * (moment + drawn.random()) / MOMENTS
        killed = Killed(tmp_path / f"{moment}", words)
        kills += killed.after(after) == KILLED
        found[f"{after:.2f} of {seconds:.2f} s"] = killed.problem(expected)
        shutil.rmtree(killed.folder)
    assert {moment: problem for moment, problem in found.items() if problem} == {}
    assert kills > MOMENTS / 4  # on a machine with other work, some moments come after the end
