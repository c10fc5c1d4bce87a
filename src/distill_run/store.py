"""The content-addressed store: a result that was computed once is reused wherever the inputs are the same.

The name of an entry is the sha256 of everything that it depends on. One process makes the entry, under a lock, in a
temporary folder, which is then renamed: an entry is there whole or not at all. The lock belongs to the operating
system: when its owner dies the lock is free at once, and the next process takes over.

    ROOT/<kind>/<fingerprint>/   the files of an entry, and meta.json: facts, the sha256 of each file, and its own
    ROOT/.locks/                 an empty file for each entry that was ever made
    ROOT/.runs/                  a file for each run: the entries that it uses
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from distill_run.files import atomic_path, told_of_no_room, write_json
from distill_run.fingerprints import file_hash, fingerprint_of
from distill_run.listener import Listener
from distill_run.processes import ALONE, Processes
from distill_run.shared_folder import check_shared, obtain_together
from distill_run.store_records import (
    NOT_A_RECORD,
    damage,
    is_sound_part,
    read_meta,
    read_uses,
    write_meta,
    write_new_meta,
    write_uses,
)
from distill_run.units import duration

ENVIRONMENT = "environment.json"
LOCKS, RUNS = ".locks", ".runs"
SHOWN_NAME = 12  # digits of a fingerprint that messages show
LONGEST_WAIT_SECONDS = 30.0
FIRST_WAIT_SECONDS = 10.0  # until it is said again that another process is waited for

T = TypeVar("T")


class Store:
    """The entries ROOT/<kind>/<fingerprint>, each of them a directory; the module explains the files.

    The `listener` is told what the user may wonder about: that another process is waited for, that an entry was
    damaged, how far the check of a large file is. `environment` says where entries are made; if it is given, it stands
    in each new one. With `run_dir`, the store also records which entries this run uses (see `record_use`). `key` is the
    key that chooses ROOT: messages name it. Of several `processes` of a run, the first one alone takes locks and
    writes; the others are told what it found, read the same files, and make what is missing together with it.
    """

    def __init__(
        self,
        root: Path,
        listener: Listener,
        environment: Mapping[str, Any] | None = None,
        run_dir: Path | None = None,
        key: str = "store_dir",
        processes: Processes = ALONE,
    ) -> None:
        self.root = root
        self.listener = listener
        self.environment = environment or {}
        self.run_dir = run_dir
        self.key = key
        self.processes = processes

    def path(self, kind: str, fingerprint: str) -> Path:
        """The directory of the entry with that kind and fingerprint, whether it exists or not."""
        return self.root / kind / fingerprint

    def obtain(self, kind: str, fingerprint: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, bool]:
        """The entry's directory, and whether it existed already; if it did not, `make` fills a new one.

        `make` returns facts for meta.json. If several runs ask at once, one makes the entry and the others wait; if the
        maker fails, one of those that wait takes over. An entry whose bytes have changed is made again. Raises
        UserError where the disk has no room, or the entry may not be read.
        """
        path = self.path(kind, fingerprint)
        made: list[Path] = []

        def make_here(directory: Path) -> dict[str, Any]:
            made.append(directory)
            directory.mkdir(exist_ok=True)  # that of a process which only helps is not there
            return make(directory)

        obtain_together(path, self.key, self.processes, partial(self._obtain, kind, fingerprint), make_here)
        return path, not made

    def _obtain(self, kind: str, fingerprint: str, make: Callable[[Path], dict[str, Any]]) -> None:
        self.record_use(kind, fingerprint)  # before the entry is made: `distill-store gc` must not remove it
        path = self.path(kind, fingerprint)
        with self._told_of_no_room():
            if path.is_dir() and not damage(path, self.listener):
                return
        with self._leaving_nothing_on_failure(), self._told_of_no_room(), self.locked(kind, fingerprint):
            if path.is_dir():
                if not (found := damage(path, self.listener)):
                    return
                self._tell(kind, fingerprint, f"in the store is damaged ({found}): it is made again")
                shutil.rmtree(path)
            with self._working_folder(path) as working:
                facts = {**make(working), "run": self._place}
                if self.environment:
                    write_json(working / ENVIRONMENT, self.environment)
                write_new_meta(working, facts, self.listener)
                working.rename(path)

    def obtain_part(self, kind: str, fingerprint: str, file_name: str, make: Callable[[Path], None]) -> Path:
        """The path of one file in an entry that grows; `make` writes the file on first use, under the entry's lock."""
        path = self.path(kind, fingerprint) / file_name
        obtain_together(path, self.key, self.processes, partial(self._obtain_part, kind, fingerprint, path), make)
        return path

    def _obtain_part(self, kind: str, fingerprint: str, path: Path, make: Callable[[Path], None]) -> None:
        with self._told_of_no_room():
            if is_sound_part(path, self.listener):
                return
            with self.locked(kind, fingerprint):
                if is_sound_part(path, self.listener):
                    return
                if path.exists():
                    self._tell(kind, fingerprint, f"in the store is damaged ({path.name}): it is made again")
                with atomic_path(path) as temporary:
                    make(temporary)
                    digest = file_hash(temporary, self.listener)
                meta = read_meta(path.parent)
                write_meta(path.parent, {**meta, "parts": {**meta["parts"], path.name: digest}})

    def is_own(self, directory: Path) -> bool:
        """Whether the entry in a directory was made by this run, perhaps before it was interrupted."""
        return bool(read_meta(directory).get("run") == self._place)  # entries of earlier versions do not say it

    def check_shared(self) -> None:
        """Raise UserError in a process of the run that does not see what the first one writes."""
        with self._told_of_no_room():
            check_shared(self.root / LOCKS, self.key, self.processes)

    @property
    def _place(self) -> str | None:
        """The run's folder as seen from the store: right also when both are moved together."""
        return None if self.run_dir is None else os.path.relpath(self.run_dir.resolve(), self.root.resolve())

    def record_use(self, kind: str, fingerprint: str) -> None:
        """Record that the run uses an entry: `distill-store gc` keeps the entry as long as the run's folder exists."""
        if self.run_dir is None or not self.processes.is_first:
            return
        place = self._place
        path = self.root / RUNS / f"{fingerprint_of({'run': place})}.json"
        try:
            entries = set(read_uses(path)["entries"])
        except (OSError, *NOT_A_RECORD):  # the first use, or a damaged record: this run names its entries again
            entries = set()
        if f"{kind}/{fingerprint}" not in entries:
            with self._told_of_no_room():
                write_uses(path, {"run": place, "entries": sorted({*entries, f"{kind}/{fingerprint}"})})

    @contextmanager
    def locked(self, kind: str, fingerprint: str) -> Iterator[None]:
        """Hold the entry's lock, which only one process can hold at a time."""
        with self._told_of_no_room():
            path = self.root / LOCKS / f"{kind}-{fingerprint}"
            lock = FileLock(path)
            try:
                _inside(path.parent, lambda: lock.acquire(timeout=0))
            except Timeout:
                self._tell(kind, fingerprint, "is being made by another process; waiting for that")
                self._wait(lock, path, partial(self._tell, kind, fingerprint))
        try:
            yield
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        finally:
            lock.release()

    def _wait(self, lock: FileLock, path: Path, tell: Callable[[str], None]) -> None:
        """Acquire a lock; says now and then that this one still waits."""
        seconds, started = FIRST_WAIT_SECONDS, time.monotonic()
        while True:
            try:
                _inside(path.parent, partial(lock.acquire, timeout=seconds))
            except Timeout:
                tell(f"is still being made by another process; waiting for {duration(time.monotonic() - started)}")
                seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
            else:
                return

    def _tell(self, kind: str, fingerprint: str, what: str) -> None:
        self.listener.noted(f"{kind} {fingerprint[:SHOWN_NAME]} {what}")

    @contextmanager
    def _leaving_nothing_on_failure(self) -> Iterator[None]:
        """After a failure, remove the folders of the store that did not exist before and are empty."""
        folders = (self.root / LOCKS, self.root, *self.root.parents)
        absent = [folder for folder in folders if not folder.exists()]
        try:
            yield
        except BaseException:
            with suppress(OSError):
                for folder in absent:
                    folder.rmdir()
            raise

    @contextmanager
    def _working_folder(self, path: Path) -> Iterator[Path]:
        """A folder to fill, which is removed after the block unless it was renamed; needs the entry's lock."""
        kind_dir, prefix = path.parent, f".{path.name}-"
        for orphan in kind_dir.glob(f"{prefix}*"):  # its process was killed, since the lock was free
            shutil.rmtree(orphan)
        working = Path(_inside(kind_dir, lambda: tempfile.mkdtemp(prefix=prefix, dir=kind_dir)))
        try:
            working.chmod(kind_dir.stat().st_mode & 0o777)  # others may not read what mkdtemp makes
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)
            with suppress(OSError):  # it holds other entries, as a rule
                kind_dir.rmdir()

    def _told_of_no_room(self) -> AbstractContextManager[None]:
        return told_of_no_room(self.key, self.root)


def _inside(folder: Path, act: Callable[[], T]) -> T:
    """The result of `act`, which needs `folder`; the folder is made first.

    Another process that fails removes the empty folders that it has made, perhaps between the two steps or while this
    one waits. Then the folder is made again.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return act()
        except FileNotFoundError:
            continue
