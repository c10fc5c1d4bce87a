"""Several processes for one run: started beside this one (device.num_processes), or found there (torchrun).

Those that are started meet by a file in a temporary folder and need no port. They ignore signals: the process that
started them, the first of them, decides when to stop, and kills them at its end, for they have nothing to save.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from distill_run.config.schema import DeviceSettings
from distill_run.engine.interrupt import SIGNALS
from distill_run.engine.process_group import ProcessGroup, join
from distill_run.errors import LostProcessError, Mistake, UserError, tell, user_error
from distill_run.processes import ALONE, Processes, rank_in_torchrun

Work = Callable[[Processes], object]

GO_ON = "go on with resume=RUN_FOLDER, with as many processes as you like"
PARENT_SECONDS = 1.0  # between two looks whether the process that started this one is there
LAST_WORDS_SECONDS = 5.0  # from the end of a process's connections to the end of the process
STUCK_SECONDS = 20.0  # that the first process may take to notice that another one has ended


@cache  # a process can join once
def found_processes() -> Processes:
    """The processes that torchrun has started, which this one joins; this one alone where it has not."""
    rank = rank_in_torchrun()
    if rank is None:
        return ALONE
    _take_gpu(int(os.environ["LOCAL_RANK"]))
    return join("env://", rank, int(os.environ["WORLD_SIZE"]), _lost_of_torchrun if rank == 0 else LostProcessError)


@contextmanager
def started(found: Processes, device: DeviceSettings, work: Work) -> Iterator[Processes]:
    """The processes of a run: those that were found, or this one and those that are started beside it for the block.

    They do `work`, which must be a function of a module. What went wrong in one of them is raised in the block.
    """
    if found.size > 1 or device.num_processes == 1:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="distill-run-") as folder, _threads_shared(device.num_processes):
        children = _Children(Path(folder), device.num_processes, work)
        try:
            yield children.join()
        finally:
            children.end()


@contextmanager
def _threads_shared(num_processes: int) -> Iterator[None]:
    """Within the block, each process takes its part of the threads that this one had."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // num_processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Children:
    """The other processes of a run, and a thread that watches them."""

    def __init__(self, folder: Path, size: int, work: Work) -> None:
        self.folder, self.size = folder, size
        self.is_over = threading.Event()
        context = multiprocessing.get_context("spawn")
        self.processes: dict[int, BaseProcess] = {}
        with _signals_ignored():  # a new process inherits that
            for rank in range(1, size):
                process = context.Process(target=_child, args=(folder, rank, size, work, torch.get_num_threads()))
                process.start()
                self.processes[rank] = process
        threading.Thread(target=self._watch, daemon=True).start()

    def join(self) -> ProcessGroup:
        """The group, once all are there."""
        _take_gpu(0)
        return join(_meeting_point(self.folder), 0, self.size, self.error)

    def error(self) -> Exception:
        """What ended the process that ended first."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while not (ended := self._ended()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for rank in ended:
            if (error := _read_error(self.folder, rank)) is not None:
                return error
        for rank, process in ended.items():
            if process.exitcode is not None and process.exitcode < 0:
                name = signal.Signals(-process.exitcode).name
                return user_error(
                    f"process {rank + 1} of {self.size} was ended by {name}, perhaps for want of memory", GO_ON
                )
        return user_error(f"the {self.size} processes of this run have lost each other", GO_ON)

    def end(self) -> None:
        """Leave the group, then kill the others: torch may abort a process whose group the others have left before."""
        self.is_over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in self.processes.values():
            process.kill()
            process.join()

    def _ended(self) -> dict[int, BaseProcess]:
        """The processes that have ended before their work was done."""
        return {
            rank: process
            for rank, process in self.processes.items()
            if not process.is_alive() and not _done(self.folder, rank).is_file()
        }

    def _watch(self) -> None:
        """End this process where another has ended and it does not notice: it may wait for a GPU for ever."""
        wait([process.sentinel for process in self.processes.values()])
        if self.is_over.wait(STUCK_SECONDS) or not self._ended():
            return
        error = self.error()
        if isinstance(error, UserError):
            tell(error)
        else:
            sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)


def _child(folder: Path, rank: int, size: int, work: Work, num_threads: int) -> None:
    """What another process does; it leaves its error in the folder, or waits to be killed."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(num_threads)
    _take_gpu(rank)
    try:
        work(join(_meeting_point(folder), rank, size, LostProcessError))
    except LostProcessError:  # the error of another process says why
        os._exit(1)
    except BaseException as error:
        _leave_error(folder, rank, error)
        os._exit(1)
    _done(folder, rank).touch()
    threading.Event().wait()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _leave_error(folder: Path, rank: int, error: BaseException) -> None:
    """Write down what ends a process, for the first one to tell."""
    mistakes = error.mistakes if isinstance(error, UserError) else []
    text = f"process {rank + 1}: {traceback.format_exc()}"
    _failure(folder, rank).write_text(json.dumps({"mistakes": mistakes, "text": text}), encoding="utf-8")


def _read_error(folder: Path, rank: int) -> Exception | None:
    path = _failure(folder, rank)
    if not path.is_file():
        return None
    left = json.loads(path.read_text(encoding="utf-8"))
    mistakes = [Mistake(*each) for each in left["mistakes"]]
    return UserError(mistakes) if mistakes else RuntimeError(left["text"])


def _lost_of_torchrun() -> Exception:
    return user_error("another process of this run has ended; its own words stand above", GO_ON)


def _take_gpu(number: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(number)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Within the block, signals are lost; only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _meeting_point(folder: Path) -> str:
    return f"file://{folder.resolve()}/store"


def _failure(folder: Path, rank: int) -> Path:
    return folder / f"failure_{rank}"


def _done(folder: Path, rank: int) -> Path:
    return folder / f"done_{rank}"
