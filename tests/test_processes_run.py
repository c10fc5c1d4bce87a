"""Whole runs of several processes: the same results, resumed with another number, and what happens when one ends."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import TINY
from distill_run.config.compose import compose
from distill_run.config.resume import resumed_settings
from distill_run.config.settings import compose_config
from distill_run.engine.interrupt import StopRequest
from distill_run.engine.launch import started
from distill_run.errors import Interrupted, UserError, user_error
from distill_run.pipeline import run
from distill_run.processes import ALONE, Processes
from distill_run.report.run_report import RunReport
from distill_run.stages.watcher import StageFacts, Watcher
from distill_run.tensor_files import load
from trainers import device_settings

pytestmark = pytest.mark.slow
CNNS = (*TINY, "student=cnn_tiny", "mode=soft", "export=null")


def run_of(folder: Path, num_processes: int, *overrides: str, name: str = "run", **others: Any) -> RunReport:
    settings = compose_config(
        [*CNNS, f"store_dir={folder / 'store'}", f"device.num_processes={num_processes}", *overrides]
    )
    return run(settings, folder / name, **others)


def student_of(folder: Path, name: str = "run") -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load(folder / name / "checkpoints" / "student.pt")["weights"]
    return weights


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance, msg=name)


def fail(processes: Processes) -> None:
    raise user_error(f"process {processes.rank + 1} cannot read a.png", "mend the file")


def die(_: Processes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def break_down(_: Processes) -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize(
    ("work", "kind", "told"),
    [
        (fail, UserError, "process 2 cannot read a.png\n  mend the file"),
        (
            die,
            UserError,
            "process 2 of 2 was ended by SIGKILL, perhaps for want of memory\n"
            "  go on with resume=RUN_FOLDER, with as many processes as you like",
        ),
        (break_down, RuntimeError, "process 2: Traceback (most recent call last):"),
    ],
)
def test_what_ends_another_process_ends_this_one(work: Callable[[Processes], None], kind: type, told: str) -> None:
    def wait_for_it() -> None:
        with started(ALONE, device_settings(num_processes=2), work) as processes:
            processes.any_of(False)

    with pytest.raises(kind) as caught:
        wait_for_it()
    assert str(caught.value).startswith(told)
    assert not torch.distributed.is_initialized()


def test_two_processes_do_the_run_of_one_and_use_its_store(tmp_path: Path) -> None:
    """The banks are equal to the bit where they come from the same teacher."""
    one = run_of(tmp_path / "one", 1)
    two = run_of(tmp_path / "two", 2)
    assert two.student.fingerprint == one.student.fingerprint
    assert_close(student_of(tmp_path / "two"), student_of(tmp_path / "one"), 1e-4)
    views = sorted((tmp_path / "one" / "store").glob("logits/*/view_*.npy"))
    bank = [view.read_bytes() for view in views]
    for view in views:
        view.unlink()
    again = run_of(tmp_path / "one", 2, name="again")
    assert again.teacher.reused
    assert again.baseline is not None
    assert again.baseline.reused
    assert [view.read_bytes() for view in views] == bank
    environment = json.loads((tmp_path / "one" / "again" / "environment.json").read_text())
    assert environment["processes"] == 2


class StopsAt(Watcher):
    """Asks the run to stop at a step of the student."""

    def __init__(self, stop: StopRequest, epoch: int, step: int) -> None:
        self.stop, self.place, self.stage = stop, (epoch, step), ""

    def stage_begun(self, stage: StageFacts) -> None:
        self.stage = stage.name

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        if (self.stage, epoch, step) == ("student", *self.place):
            self.stop.request(Interrupted())


def resume(folder: Path, num_processes: int, **others: Any) -> RunReport:
    words = [f"resume={folder / 'run'}", f"device.num_processes={num_processes}"]
    settings = resumed_settings(folder / "run" / "config.yaml", compose(words).config, words)
    return run(settings, folder / "run", **others)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    run_of(tmp_path / "whole", 1)
    for number, (num_processes, step) in enumerate(((2, 5), (1, 9), (2, None))):
        stop = StopRequest()
        watchers = [] if step is None else [StopsAt(stop, 1, step)]
        go_on = partial(run_of, tmp_path / "cut") if number == 0 else partial(resume, tmp_path / "cut")
        if step is None:
            go_on(num_processes, watchers=watchers, stop=stop)
        else:
            with pytest.raises(Interrupted):
                go_on(num_processes, watchers=watchers, stop=stop)
    assert_close(student_of(tmp_path / "cut"), student_of(tmp_path / "whole"), 1e-4)


class KillsAnother(Watcher):
    """Kills the other process, as a system does that is short of memory."""

    def stepped(self, epoch: int, step: int, num_images: int, loss: Tensor) -> None:
        for process in multiprocessing.active_children():
            process.kill()


def test_a_run_whose_other_process_is_killed_has_failed_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="process 2 of 2 was ended by SIGKILL"):
        run_of(tmp_path, 2, watchers=[KillsAnother()])
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "failed"
    assert resume(tmp_path, 1).val_goodness > 0


def test_the_others_end_with_the_first_one(tmp_path: Path) -> None:
    """A run that is killed leaves no process behind."""
    words = [*CNNS, f"store_dir={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}", "device.num_processes=2"]
    words.append("training.teacher.epochs=10000")
    process = subprocess.Popen([sys.executable, "-m", "distill_run", *words], stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    others = [Path("/proc", number) for number in children.read_text().split()]
    assert others
    process.kill()
    process.wait()
    while any(other.exists() for other in others) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [other for other in others if other.exists()] == []


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "distill_run")


def by_torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *words], capture_output=True, text=True, timeout=240)


def test_torchrun_does_the_run_of_one_process(tmp_path: Path) -> None:
    run_of(tmp_path / "one", 1)
    words = [*CNNS, f"store_dir={tmp_path / 'two' / 'store'}", f"hydra.run.dir={tmp_path / 'two' / 'run'}"]
    done = by_torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report   ") == 1  # one process tells the results
    assert_close(student_of(tmp_path / "two"), student_of(tmp_path / "one"), 1e-4)
    again = by_torchrun(f"resume={tmp_path / 'two' / 'run'}")
    assert again.returncode == 0, again.stderr
    assert "the run is completed" in again.stdout


def test_torchrun_tells_a_mistake(tmp_path: Path) -> None:
    done = by_torchrun(*CNNS, f"store_dir={tmp_path}", "dataset.num_classes=7", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 1
    told = "error: dataset.num_classes=7, but the dataset has 10 classes\n  write dataset.num_classes=10 or null\n"
    assert told in done.stderr
