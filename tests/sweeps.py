"""Run directories as a sweep leaves them, written by hand: no training, figures that a test can work out."""

import json
import random
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill_run.files import RunFiles


def made_up_report(
    *,
    val: float = 0.5,
    test: float = 0.5,
    baseline: float | None = 0.4,
    nll: float = 1.0,
    seed: int = 0,
    teacher: float = 0.9,
    warnings: Sequence[str] = (),
    content: str = "c0",
    baseline_fingerprint: str = "f",
    **more: Any,
) -> dict[str, Any]:
    """A report.json as the first version wrote it; `more` are keys that were added later. Each split has 8 images."""

    def network(val_accuracy: float, test_accuracy: float) -> dict[str, Any]:
        rest = {"top5_accuracy": 1.0, "nll": nll, "ece": 0.25}
        moment = {
            "epoch": 1, "val": {"accuracy": val_accuracy, **rest}, "test": {"accuracy": test_accuracy, **rest},
        }  # fmt: skip
        return {
            "architecture": "net", "params": 10, "macs": 20, "bytes": 40, "fingerprint": "f", "selected": moment,
            "last": moment, "train_seconds": 2.0, "images_per_second": 5.0,
        }  # fmt: skip

    alone = None if baseline is None else {**network(baseline, baseline), "fingerprint": baseline_fingerprint}
    return {
        "format": 1,
        "status": "completed",
        "seed": seed,
        "dataset": {
            "name": "digits", "num_classes": 10, "train_size": 8, "val_size": 8, "test_size": 8, "content": content,
        },
        "mode": {"name": "soft", "temperature": 4.0},
        "teacher": network(teacher, teacher),
        "baseline": alone,
        "student": network(val, test),
        "fidelity": {"agreement": 0.75, "disagreement": 0.25, "kl": 0.5},
        "gap_recovered": None if baseline is None else (test - baseline) / (0.9 - baseline),
        "conclusion": "made up",
        "warnings": list(warnings),
        **more,
    }  # fmt: skip


def made_up_repeats(
    first_seed: int, tests: Sequence[float], alone: Sequence[float], val: Sequence[float]
) -> dict[str, Any]:
    """The figures of a run with several seeds, counted up: accuracies of its students and of its baselines."""
    repeats = []
    for seed, figures in enumerate(zip(tests, alone, val, strict=True), start=first_seed):
        [test, baseline, accuracy] = figures
        one = made_up_report(test=test, baseline=baseline, val=accuracy, baseline_fingerprint=str(seed))
        repeats.append(
            {"seed": seed, "baseline": one["baseline"], "student": one["student"], "fidelity": one["fidelity"]}
        )
    shipped = max(repeats, key=lambda repeat: repeat["student"]["selected"]["val"]["accuracy"])
    return {"repeats": repeats, "student": shipped["student"]}


def write_run(
    run_dir: Path,
    overrides: Sequence[str] = (),
    *,
    status: str = "completed",
    error: str | None = None,
    options: Sequence[str] = (),
    config: dict[str, Any] | None = None,
    **figures: Any,
) -> Path:
    """A run directory; the figures of a completed one are those of `made_up_report`, its seed that of the overrides."""
    run_dir.mkdir(parents=True)
    seeds = [int(override.removeprefix("seed=")) for override in overrides if override.startswith("seed=")]
    content = {"status": status} if error is None else {"status": status, "error": error}
    (run_dir / "status.json").write_text(json.dumps(content))
    command = shlex.join(["distill-run", *options, *overrides])
    (run_dir / "environment.json").write_text(json.dumps({"command": command, "directory": "/"}))
    if config is not None:
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    if status == "completed":
        (run_dir / "report.json").write_text(
            json.dumps(made_up_report(**{"seed": seeds[0] if seeds else 0, **figures}))
        )
    return run_dir


def copy_runs(run_dir: Path, folder: Path, commands: Iterable[str]) -> None:
    """A folder of runs with files as large as real ones: copies of a completed run that a report can read.

    Each has a command, one seed and accuracies of its own.
    """
    files = RunFiles(run_dir)
    report = json.loads(files.report.read_text())
    environment = json.loads(files.environment.read_text())
    generator = random.Random(0)
    for number, command in enumerate(commands):
        copy = RunFiles(folder / str(number))
        copy.run_dir.mkdir(parents=True)
        for split in ("val", "test"):
            correct = generator.randrange(100, report["dataset"][f"{split}_size"])
            report["student"]["selected"][split]["accuracy"] = correct / report["dataset"][f"{split}_size"]
        copy.report.write_text(json.dumps({**report, "seed": number, "repeats": []}))
        copy.environment.write_text(json.dumps({**environment, "command": command}))
        for path in (files.config, files.status, files.metrics):
            shutil.copyfile(path, copy.run_dir / path.name)
