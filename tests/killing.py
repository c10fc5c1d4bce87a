"""Work in forked processes that kill themselves, and what must be equal at the end, whatever has been killed.

A process is killed at its n-th write: when it is about to open a file for writing, to rename, to remove or to make
one. The n-th write is the same in every process, so that all of them can be counted out. A file that is about to be
renamed is cut in half first: that is what a kill in the middle of writing leaves.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
CLOCK = ("seconds", "images_per_second", "data_share", "train_seconds", "peak_memory_bytes")
SHARED = ("reused", "origin", "warnings")
ERROR = 99  # the exit status of a process that ends with a traceback


class Writes:
    """An audit hook that notes each write below the working directory in a file, and kills the process at the n-th."""

    def __init__(self, log: Path, kill_at: int | None) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.kill_at, self.folder = kill_at, Path.cwd()
        self.count, self.owner = 0, os.getpid()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike) or os.getpid() != self.owner:
            return
        path = self.folder / os.fsdecode(path)
        if not path.is_relative_to(self.folder):
            return
        if (event == "os.mkdir" and path.is_dir()) or (event == "os.remove" and path.suffix == ".tmp"):
            return  # nothing is to be done: it is there, or has been renamed
        os.write(self.log, f"{event} {path.relative_to(self.folder)}\n".encode())
        if self.count == self.kill_at:
            if event == "os.rename" and path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def start(folder: Path, work: Callable[[], object], kill_at: int | None = None) -> int:
    """Fork a process that works in a folder; the number of the process. What it says is in FOLDER.out."""
    folder.mkdir(exist_ok=True)
    if process := os.fork():
        return process
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        output = os.open(folder.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        sys.addaudithook(Writes(folder.with_suffix(".writes"), kill_at))
        work()
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(ERROR)  # whatever happens, no second pytest goes on


def end_of(process: int) -> int:
    """The exit status of a forked process, or the number of the signal that ended it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def call(folder: Path, work: Callable[[], object], kill_at: int | None = None) -> int:
    """Work in a forked process to its end, or to its n-th write, counted from 0."""
    return end_of(start(folder, work, kill_at))


def kill_after(seconds: float, folder: Path, work: Callable[[], object]) -> int:
    """Kill a forked process, and those that it has started, after so much time, unless it has ended."""
    process, deadline = start(folder, work), time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(process, signal.SIGKILL)
    return end_of(process)


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be equal at the end: weights, figures, reports, the names of the files; no times and no paths.

    In a sweep it is a matter of time which point trains what all share, and is warned of it.
    """
    is_sweep = any(folder.glob("out/*/report.json"))
    found: dict[str, Any] = {"files": sorted(str(path.relative_to(folder)) for path in _kept(folder))}
    for path in _kept(folder):
        name = str(path.relative_to(folder))
        if path.suffix == ".pt" and path.name != "last.pt":
            found[name] = _plain(torch.load(path, weights_only=True))
        elif path.suffix in (".npy", ".npz") or path.name == "predictions.csv":
            found[name] = path.read_bytes()
        elif path.name == "metrics.jsonl":
            found[name] = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name in ("report.json", "status.json", "figures.json"):
            found[name] = _plain(json.loads(path.read_text()), (*CLOCK, *(SHARED if is_sweep else ())))
    return found


def _kept(folder: Path) -> list[Path]:
    ignored = (".locks", ".runs", "study.db")
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and not any(part in ignored for part in path.parts)
    )


def _plain(value: Any, ignored: Sequence[str] = CLOCK) -> Any:
    """The same without the keys that may differ; a tensor becomes its bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(child, ignored) for key, child in value.items() if key not in ignored}
    if isinstance(value, list):
        return [_plain(child, ignored) for child in value]
    return value


def difference(found: Any, expected: Any, where: str = "") -> str | None:
    """Where two outcomes differ first, in words; None where they are equal."""
    if isinstance(found, dict) and isinstance(expected, dict):
        if found.keys() != expected.keys():
            return f"{where}: {sorted(map(str, found.keys() ^ expected.keys()))} is in one alone"
        told = (difference(found[key], expected[key], f"{where}/{key}") for key in expected)
        return next((text for text in told if text), None)
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        told = (difference(ours, theirs, f"{where}[{n}]") for n, (ours, theirs) in pairs)
        return next((text for text in told if text), None)
    return None if found == expected else f"{where}: {str(found)[:300]} instead of {str(expected)[:300]}"
