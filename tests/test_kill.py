"""Killed anywhere, a run goes on, and its end is that of an uninterrupted one, bit for bit.

All of it, for an hour or so: python -m pytest -n0 -m slow tests/test_kill.py
"""

import dataclasses
import os
from pathlib import Path

import pytest
import torch._dynamo  # noqa: F401 - each forked process would load it

from conftest import TINY, without_pages
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.pipeline import run
from killing import call, difference, outcome

# All that has a state of its own: a search, an assistant, repeats, views, a moving average; saved after every step.
EVERYTHING = (
    *(*TINY, "dataset.train_fraction=0.1", "training.teacher.batch_size=64", "training.student.batch_size=64"),
    *("repeats=2", "assistants=mlp", "assistants.mlp.hidden=[8]", "training.views=2", "training.student.ema=0.9"),
    *("training.student.lr_search=[0.01,0.1]", "robustness_images=10", "checkpoint.every_minutes=1e-9"),
)
KILLED = -9


class Killed:
    """A run that is killed and goes on."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings

    def begin_or_go_on(self) -> None:
        """What a person does: resume= where there is a checkpoint, otherwise the same command."""
        last = Path("out/checkpoints/last.pt")
        run(dataclasses.replace(self.settings, resume="out" if last.exists() else None), "out")

    def __call__(self, kill_at: int | None = None) -> int:
        return call(self.folder, self.begin_or_go_on, kill_at)

    @property
    def said(self) -> str:
        return self.folder.with_suffix(".out").read_text()

    @property
    def writes(self) -> list[str]:
        return self.folder.with_suffix(".writes").read_text().splitlines()


@pytest.fixture(scope="module")
def settings() -> Settings:
    return compose_config(EVERYTHING)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Killed:
    """An uninterrupted run."""
    killed = Killed(tmp_path_factory.mktemp("whole") / "run", settings)
    with without_pages():
        assert killed() == 0, killed.said
    return killed


@pytest.mark.usefixtures("no_pages")
def test_a_run_that_is_killed_again_and_again_ends_like_an_uninterrupted_one(
    tmp_path: Path, settings: Settings, whole: Killed
) -> None:
    killed = Killed(tmp_path / "run", settings)
    for _ in range(3):
        assert killed(len(whole.writes) // 5) == KILLED
    assert killed() == 0, killed.said
    assert difference(outcome(killed.folder), outcome(whole.folder)) is None


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("no_pages")
def test_a_run_that_is_killed_at_any_write_ends_like_an_uninterrupted_one(
    tmp_path: Path, settings: Settings, whole: Killed
) -> None:
    expected = outcome(whole.folder)
    found = {}
    step = int(os.environ.get("DISTILL_RUN_KILL_STEP", "1"))
    for write, what in list(enumerate(whole.writes))[::step]:
        killed = Killed(tmp_path / f"{write}", settings)
        assert killed(write) == KILLED
        found[f"{write} {what}"] = killed.said if killed() else difference(outcome(killed.folder), expected)
    assert {write: problem for write, problem in found.items() if problem} == {}
