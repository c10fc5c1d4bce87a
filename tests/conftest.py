"""Fixtures that several files share: a tiny run that takes a second, images on disk, the command as a user has it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill_run.config import compose as composing
from distill_run.config.settings import compose_config
from distill_run.config.variants import Variants
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport

# Real digits, networks of a thousand parameters, one epoch.
TINY = (
    "teacher=cnn_tiny",
    "student=mlp",
    "student.hidden=[8]",
    "dataset.image_size=8",
    "training.teacher.epochs=2",
    "training.student.epochs=2",
    "repeats=1",
    "robustness_images=0",
    "training/teacher/optimizer=nesterov",
    "training/student/optimizer=nesterov",
    "training.student.batch_size=32",
    "training.teacher.batch_size=32",
    "device=cpu",
    "device.precision=fp32",
    "measure_speed=false",
)

# Tiny networks gain nothing by a second thread, and tests run beside each other.
torch.set_num_threads(1)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs the installed `distill-run` in an empty directory."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("distill-run")), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **variables},
        )

    return call


InProcess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    """Runs a command's main() in this process and an empty directory: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(main: Callable[[], object], *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", list(words))
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture(autouse=True, scope="session")
def shared_compositions() -> Iterator[None]:
    """Command lines that differ in single values share a composition, as the points of a sweep do: one takes 0.2 s.

    Those with a folder of one's own, whose files a test may change, are composed anew.
    """
    shared = composing.new_variants()

    def compose(
        overrides: Sequence[str] = (), extra_dir: Path | None = None, variants: Variants | None = None
    ) -> composing.Composed:
        return original(overrides, extra_dir, variants or (None if extra_dir else shared))

    original = composing.compose
    with pytest.MonkeyPatch.context() as patch:
        for module in ("compose", "resume", "settings"):
            patch.setattr(f"distill_run.config.{module}.compose", compose)
        yield


@contextmanager
def without_pages() -> Iterator[None]:
    """Runs write no report.html and no plots but that of the views: they take longer than tiny trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_run.pipeline.write_pages", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def no_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for the time of a test, unless it is marked as one that looks at them."""
    with nullcontext() if "pages" in request.keywords else without_pages():
        yield


@pytest.fixture(scope="session")
def tiny_report(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """A completed run of the tiny pair."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = [*TINY, "measure_speed=true", "robustness_images=30", f"store_dir={folder / 'store'}"]
    return run(compose_config(settings), folder / "run")


def write_photos(root: Path) -> Path:
    """An image folder: train/ and test/ with twelve and six 8x8 colour images of each of two classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for brightness, name in ((40, "night"), (200, "day")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(brightness, brightness + 50, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An image folder that a test may change."""
    return write_photos(tmp_path / "photos")
