"""Poison in the test split changes the test figures and nothing else: no image and no target of it is learnt from.

Each dataset is run twice: as it is, and with a test split of other images, other targets, other sizes and another
number of them. Whatever is chosen, searched, weighted, measured or fitted before the test must be equal to the bit.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import TINY
from distill_run.config.settings import compose_config
from distill_run.data import digits
from distill_run.data.source import Source, Split
from distill_run.files import RunFiles
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport
from distill_run.tensor_files import load

# All that chooses: a search, an epoch and an end by validation, weights of classes, measured statistics, a bank.
CHOOSING = (
    "training.student.lr_search=[0.01,0.1]", "training.class_weights=balanced", "training.student.patience=1",
    "training.select_by=macro_f1", "training.student.ema=0.9", "training/student/schedule=plateau", "dataset.mean=null",
    "dataset.std=null", "mode.temperature=2", "training.student.epochs=3",
)  # fmt: skip
TIMES = ("seconds", "images_per_second", "data_share")


def run_in(folder: Path, *overrides: str) -> RunReport:
    return run(compose_config([*TINY, *CHOOSING, *overrides, f"store_dir={folder / 'store'}"]), folder / "run")


def choices(report: RunReport, folder: Path) -> dict[str, Any]:
    """All of a run that was settled before the test split was read."""
    files = RunFiles(folder / "run")
    config = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in files.metrics.read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = {
        "metrics": [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
        "dataset": {key: config["dataset"][key] for key in ("mean", "std", "image_size", "crop_ratio")},
        "temperatures": {stage: each.temperature for stage, each in report.calibration.items()},
        "sizes": (report.dataset.train_size, report.dataset.val_size),
    }
    for stage, network in report.networks:
        moments = {name: (moment.epoch, asdict(moment.val)) for name, moment in
                   {"selected": network.selected, "last": network.last}.items()}  # fmt: skip
        found[stage] = {**moments, "rate": network.learning_rate, "search": network.lr_search}
    return found


def weights(folder: Path) -> Iterator[torch.Tensor]:
    """Of the teacher, the baseline and the student."""
    (teacher,), (baseline,) = (list((folder / "store" / kind).glob("*/weights.pt")) for kind in ("teacher", "baseline"))
    for path in (teacher, baseline, RunFiles(folder / "run").student):
        yield from load(path)["weights"].values()


def assert_only_the_test_figures_differ(folders: list[Path], reports: list[RunReport]) -> None:
    clean, poisoned = (choices(report, folder) for report, folder in zip(reports, folders, strict=True))
    assert poisoned == clean
    assert all(map(torch.equal, weights(folders[0]), weights(folders[1])))
    tests = [asdict(report.student.selected.test) for report in reports]
    assert tests[0] != tests[1]
    assert reports[0].dataset.test_size != reports[1].dataset.test_size


def poison(source: Source) -> Source:
    """A test split of noise, in which every target is another one."""
    size, shape = len(source.test.targets) - 7, source.test.images.shape[1:]  # type: ignore[union-attr]
    noise = np.random.default_rng(0).integers(0, 256, (size, *shape), dtype=np.uint8)
    targets = (source.test.targets[:size] + 1) % len(source.classes)  # type: ignore[union-attr]
    return replace(source, test=Split(torch.from_numpy(noise), targets))


@pytest.mark.slow
def test_no_digit_of_the_test_split_is_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, reports = [tmp_path / "clean", tmp_path / "poisoned"], []
    original = digits.load
    for folder, change in zip(folders, (lambda source: source, poison), strict=True):
        monkeypatch.setattr(digits, "load", lambda change=change, **size: change(original(**size)))
        reports.append(run_in(folder, "dataset.train_fraction=0.3"))
    assert_only_the_test_figures_differ(folders, reports)


def write_album(root: Path, *, is_poisoned: bool) -> Path:
    """Photographs of two classes, day twice as often; the poisoned test split is large, bright and named wrongly."""
    for split, count in (("train", 12), ("val", 6), ("test", 5 if is_poisoned else 6)):
        generator = np.random.default_rng(len(split))
        for name, brightness, times in (("night", 30, 1), ("day", 150, 2)):
            is_wrong = is_poisoned and split == "test"
            side, level = (90, 400 - 2 * brightness) if is_wrong else (24, brightness)
            for index in range(count * times):
                pixels = generator.integers(level // 2, level // 2 + 60, (side, side, 3), dtype=np.uint8)
                path = root / split / name / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


@pytest.mark.parametrize(
    "memory", ["null", pytest.param("0.00001", marks=pytest.mark.slow)], ids=["kept", "by workers"]
)
def test_no_photograph_of_the_test_split_is_learnt_from(memory: str, tmp_path: Path) -> None:
    folders, reports = [tmp_path / "clean", tmp_path / "poisoned"], []
    for folder, is_poisoned in zip(folders, (False, True), strict=True):
        album = write_album(folder / "album", is_poisoned=is_poisoned)
        own = ["dataset=image_folder", f"dataset.root={album}", "dataset.image_size=null"]
        reports.append(run_in(folder, *own, f"dataset.memory_gigabytes={memory}", "dataset.workers=1"))
    assert_only_the_test_figures_differ(folders, reports)
