"""Much at once: a report of 10,000 runs, 500 runs in one sweep, 16 processes on one store. Marked `slow`.

    pytest -n0 -s -m slow tests/test_load.py

prints the seconds and the memory; only the memory is asserted.
"""

import gc
import itertools
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, InProcess, without_pages, write_photos
from distill_run import tensor_files
from distill_run.commands import installed
from distill_run.commands.inventory import list_entries, list_leftovers
from distill_run.commands.runner import run_recorded
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.engine.loop import Trainer
from distill_run.pipeline import run
from distill_run.report.run_report import RunReport, read_report
from distill_run.store_records import damage
from sweeps import copy_runs

NUM_RUNS, NUM_POINTS, NUM_PROCESSES = 10_000, 500, 16
MEGABYTE = 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


# A report of 10,000 runs.

LR, TEMPERATURE, ALPHA = "training.student.optimizer.lr", "mode.temperature", "mode.alpha"
SWEEPS: dict[str, Callable[[int], str]] = {
    "settings with ten seeds": lambda i: f"{TEMPERATURE}={i // 10 % 100} {ALPHA}=0.{i // 1000} seed={i % 10}",
    "a grid": lambda i: f"{TEMPERATURE}={1 + i % 100} {ALPHA}={i // 100 / 100}",
    "one key": lambda i: f"{LR}={(i + 1) / 1e5}",
    "a search": lambda i: f"{LR}=0.{i:04}1 {TEMPERATURE}={1 + i * 7919 % 9973 / 1e3} {ALPHA}=0.{i * 6007 % 9973}",
    "seeds": lambda i: f"seed={i}",
}


# A child of this large process would count its memory as its own.
MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(status, used.ru_utime, used.ru_maxrss)
"""


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_report_of_ten_thousand_runs(kind: str, tmp_path: Path, tiny_report: RunReport) -> None:
    folder = tmp_path / "sweep"
    copy_runs(tiny_report.run_dir, folder, (f"distill-run {SWEEPS[kind](number)}" for number in range(NUM_RUNS)))
    report = [Path(sys.executable).with_name("distill-report"), folder]
    measured = subprocess.check_output([sys.executable, "-c", MEASURE, *report], text=True)
    status, seconds, peak = map(float, measured.split())
    assert status == 0
    page, pictures = folder / "sweep.html", list((folder / "plots").iterdir())
    sys.stdout.write(f"{kind}: {seconds:.0f} s, {peak / 1024:.0f} MB; the page {page.stat().st_size / 1e6:.1f} MB\n")
    assert peak < 800 * 1024  # kilobytes
    assert page.stat().st_size < 2.5e6
    assert all(picture.stat().st_size < 1e6 for picture in pictures)
    assert len((folder / "sweep.csv").read_text().splitlines()) == 1 + NUM_RUNS
    assert json.loads((folder / "sweep.json").read_text())["counts"]["completed"] == NUM_RUNS


# 500 runs in one sweep.


def open_files() -> list[str]:
    """What this process has open, but for what the thread that shows the progress reads just now."""
    opened = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile, as the folder that is listed here is
            opened.append(str(number.readlink()))
    return sorted(name for name in opened if "/sweep/" not in name)


def test_a_sweep_of_five_hundred_runs_keeps_its_memory_and_its_files(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[float, list[str], float]] = []  # memory, open files, seconds spent, of each run

    def measured(*arguments: Any) -> float | None:
        begun = time.process_time()
        goodness = run_recorded(*arguments)
        seconds = time.process_time() - begun
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((pages * resource.getpagesize() / MEGABYTE, open_files(), seconds))
        return goodness

    monkeypatch.setattr("distill_run.commands.distill.run_recorded", measured)
    short = ["training.teacher.epochs=1", "training.student.epochs=1", "training.student.batch_size=1024"]
    swept = ["mode.temperature=range(1,26)", f"mode.alpha={','.join(f'{i / 20}' for i in range(20))}"]
    status, out, err = in_process(installed.run, "distill-run", "-m", *TINY, *short, *swept, "hydra.sweep.dir=sweep")
    assert (status, err) == (0, "")
    assert len(seen) == NUM_POINTS
    for place in (50, 250, 500):
        memory, files, _ = seen[place - 1]
        each = sum(seconds for _, _, seconds in seen[place - 50 : place]) / 50
        sys.stdout.write(f"run {place}: {memory:.0f} MB, {len(files)} files, {each:.2f} s each of the last 50\n")
    # Hydra keeps the configurations of all runs, a quarter of a megabyte each.
    assert seen[-1][0] - seen[49][0] < 0.5 * (NUM_POINTS - 50)
    assert seen[-1][1] == seen[49][1]
    rows = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()[1:]
    assert len(rows) == NUM_POINTS
    assert {row.split(",")[1] for row in rows} == {"completed"}
    assert f"{NUM_POINTS} points in sweep" in out


# 16 processes on one store.


def settings_of(number: int, folder: Path, store: str) -> list[str]:
    """Images in files, one teacher for all, four different students."""
    sizes = [f"student.hidden=[{4 + number % 4}]", "training.student.batch_size=4", "training.teacher.batch_size=4"]
    places = ["dataset=image_folder", f"dataset.root={folder / 'photos'}", f"store_dir={folder / store}"]
    return [*TINY, *sizes, *places]


def run_number(number: int, folder: Path, store: str) -> None:
    """A run of a process; the first that trains the teacher is killed with the lock of its entry in its hand."""
    train_step = Trainer._train_step

    def killed_once(self: Trainer, *arguments: Any) -> Any:
        if self.learner.stage == "teacher" and self.step == 2 and store == "store":
            try:
                (folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                return train_step(self, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(self, *arguments)

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Trainer, "_train_step", killed_once)
        stack.enter_context(without_pages())
        run(
            compose_config(settings_of(number, folder, store)),
            folder / store / f"run{number}",
            console=Console(quiet=True),
        )


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: the threads are pytest's
def test_sixteen_processes_share_one_store_and_one_of_them_is_killed(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    fork = multiprocessing.get_context("fork")  # they share what this process has loaded
    processes = [fork.Process(target=run_number, args=(each, tmp_path, "store")) for each in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    codes = [process.exitcode for process in processes]
    assert sorted(map(str, codes)) == sorted(["-9", *["0"] * (NUM_PROCESSES - 1)])
    whole = [number for number, code in enumerate(codes) if code == 0]
    reports = [read_report(tmp_path / "store" / f"run{number}") for number in whole]
    assert [report.teacher.reused for report in reports].count(False) == 1
    assert [report.baseline is not None and report.baseline.reused for report in reports].count(False) == 4
    entries = list_entries(tmp_path / "store")
    kinds = {kind: len(list(group)) for kind, group in itertools.groupby(entry.kind for entry in entries)}
    assert kinds == {"baseline": 4, "images": 3, "logits": 1, "teacher": 1}
    assert [damage(entry.path) for entry in entries] == [None] * len(entries)
    assert list_leftovers(tmp_path / "store") == []
    for number in whole[:4]:  # the same student without the others
        run_number(number, tmp_path, "own")
        weights = [
            tensor_files.load(tmp_path / store / f"run{number}" / "checkpoints" / "student.pt")["weights"]
            for store in ("store", "own")
        ]
        torch.testing.assert_close(*weights, rtol=0, atol=0)
