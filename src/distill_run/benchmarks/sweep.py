"""How long a sweep of twelve points takes: the usual way, and with distill-run, in turn, over the same images.

    python -m distill_run.benchmarks.sweep IMAGES [--train-images 5000] [--epochs 4] [--seeds 1] [override ...]

IMAGES is an image folder, such as CIFAR-10's; cnn_large teaches cnn_small, unless overrides choose another pair. The
usual way: the teacher is trained once, then each of the twelve points is a fresh process that trains the student with
PIL images in a DataLoader and the teacher live, in fp32. Ours is `distill-run -m` in an empty store: teacher, baseline,
logit bank, twelve students and all reports. Both evaluate on the validation split after each epoch and on the test
split at the end. With --seeds 3 the points have three seeds each: 36 students, and three baselines of ours.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill_run.build import Builder
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.data.opening import Feeds
from distill_run.data.source import Split
from distill_run.files import RunFiles
from distill_run.listener import NOBODY
from distill_run.report.network_report import NetworkReport
from distill_run.report.run_report import read_report
from distill_run.store import Store
from distill_run.sweeps.points import find_runs
from distill_run.units import duration

TEMPERATURES, ALPHAS = (1, 2, 4, 8), (0.1, 0.5, 0.9)


def main(arguments: Sequence[str]) -> None:
    """Time both ways and print the seconds of each and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_subset(options.images.resolve(), folder / "images", options.train_images, options.test_images)
        overrides = ["teacher=cnn_large", "student=cnn_small"]
        overrides += ["training/teacher/optimizer=sgd", "training/student/optimizer=nesterov"]
        for key in ("teacher", "student"):
            overrides += [f"training.{key}.epochs={options.epochs}", f"training.{key}.batch_size=128"]
        overrides += ["dataset=image_folder", f"dataset.root={folder / 'images'}", *options.overrides]
        usual = time_usual(folder, overrides, options.seeds)
        ours = time_ours(folder, overrides, options.seeds)
    for label, parts in (("the usual way", usual), ("distill-run", ours)):
        spent = ", ".join(f"{part} {duration(seconds)}" for part, seconds in parts.items())
        console.note(f"{label:<14} {duration(sum(parts.values())):>8}   {spent}")
    console.note(f"ratio          {sum(usual.values()) / sum(ours.values()):>8.2f}")


def make_subset(source: Path, target: Path, num_train: int, num_test: int) -> None:
    """An image folder of links to the first images of each class."""
    for split, count in (("train", num_train), ("test", num_test)):
        classes = sorted(folder for folder in (source / split).iterdir() if folder.is_dir())
        for each in classes:
            folder = target / split / each.name
            folder.mkdir(parents=True)
            for path in sorted(each.iterdir())[: count // len(classes)]:
                (folder / path.name).symlink_to(path)


def time_usual(folder: Path, overrides: list[str], num_seeds: int) -> dict[str, float]:
    """Seconds of the teacher and of all students, a process each."""
    settings = compose_config(overrides)
    images, teacher = folder / "images.npz", folder / "teacher.pt"
    _write_arrays(settings, folder, images)
    names, recipes = settings.names, settings.training

    def train(*words: Any, recipe: Any) -> float:
        command = [sys.executable, "-m", "distill_run.benchmarks.usual", images, *words]
        command += ["--epochs", recipe.epochs, "--batch-size", recipe.batch_size, "--lr", recipe.optimizer["lr"]]
        start = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True)
        return time.perf_counter() - start

    teacher_seconds = train(teacher, "--architecture", names.teacher, recipe=recipes.teacher)
    guide = ("--teacher", teacher, "--teacher-architecture", names.teacher, "--architecture", names.student)
    students = [
        train(folder / "student.pt", *guide, "--temperature", temperature, "--alpha", alpha, recipe=recipes.student)
        for temperature, alpha, _ in product(TEMPERATURES, ALPHAS, range(num_seeds))
    ]
    return {"teacher": teacher_seconds, f"{len(students)} students": sum(students)}


def _write_arrays(settings: Any, folder: Path, path: Path) -> None:
    """The splits of the experiment as the usual way reads them."""
    feed, _ = Feeds().open(settings.dataset, Builder(), torch.device("cpu"), Store(folder / "arrays", NOBODY))
    arrays: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        split = getattr(feed, name)
        assert isinstance(split, Split)
        arrays |= {f"{name}_images": split.images.permute(0, 2, 3, 1).numpy(), f"{name}_targets": split.targets.numpy()}
    np.savez(path, **arrays)


def time_ours(folder: Path, overrides: list[str], num_seeds: int) -> dict[str, float]:
    """Seconds of the whole command, by what they went into.

    A point's folder says when it began, when its student was measured and when it ended: what lies between is not told
    by any report.
    """
    swept = [f"mode.temperature={','.join(map(str, TEMPERATURES))}", f"mode.alpha={','.join(map(str, ALPHAS))}"]
    swept.append(f"seed={','.join(map(str, range(num_seeds)))}")
    places = [f"store_dir={folder / 'store'}", f"hydra.sweep.dir={folder / 'sweep'}"]
    began = time.time()
    subprocess.run([sys.executable, "-m", "distill_run", "-m", *overrides, *swept, *places], check=True)
    ended = time.time()
    run_dirs = find_runs([folder / "sweep"])
    runs, reports = [RunFiles(run_dir) for run_dir in run_dirs], [read_report(run_dir) for run_dir in run_dirs]
    trained = {
        "teacher": _trained([report.teacher for report in reports]),
        "baseline": _trained([report.baseline for report in reports if report.baseline is not None]),
        f"{len(reports)} students": _trained([report.student for report in reports]),
    }
    start = min(_written(files.environment) for files in runs) - began
    points = sum(_written(files.status) - _written(files.environment) for files in runs)
    reporting = sum(_written(files.status) - _written(files.student) for files in runs)
    return {
        "start": start,
        **trained,
        "bank, tests and store": points - reporting - sum(trained.values()),
        "reports of the points": reporting,
        "between points, and the sweep's report": ended - began - start - points,
    }


def _trained(networks: Sequence[NetworkReport]) -> float:
    """The seconds of training; a network that several runs share counts once."""
    return sum({network.fingerprint: network.train_seconds for network in networks}.values())


def _written(path: Path) -> float:
    """When a file was written, in seconds since 1970."""
    return path.stat().st_mtime


if __name__ == "__main__":
    main(sys.argv[1:])
