"""Files that the first process of a run writes in a folder, and the others read there, perhaps on other machines."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distill_run.errors import user_error
from distill_run.processes import Processes

SHARED_SECONDS = 20.0  # in which a file that one machine has written must be seen by the others

T = TypeVar("T")


def obtain_together(
    path: Path,
    key: str,
    processes: Processes,
    obtain: Callable[[Callable[[Path], T]], None],
    make: Callable[[Path], T],
) -> None:
    """Let the first process `obtain` what belongs in `path`; if it has to `make` that, the others do so as well.

    What the others make goes nowhere. `key` chooses the folder. Raises UserError in a process that does not see what
    the first one wrote, or would have made something else.
    """
    if processes.is_first:

        def make_with_others(target: Path) -> T:
            processes.from_first(lambda: None)
            return make(target)

        obtain(make_with_others)
        processes.from_first(lambda: path)
        return
    while (obtained := processes.from_first(lambda: path)) is None:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / path.name)
    if obtained != path:
        raise user_error(
            f"process {processes.rank + 1} of {processes.size} would make {path}, and the first one {obtained}: "
            "their programs or their images are not the same",
            "install the same version of everything on all machines, and give all of them the same dataset",
        )
    _see(path, key, processes)


def check_shared(folder: Path, key: str, processes: Processes) -> None:
    """Raise UserError in a process that does not see what the first one writes in a folder, which `key` chooses."""
    if processes.size == 1:
        return

    def write() -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".shared-", dir=folder)
        os.close(handle)
        return Path(name)

    sign = processes.from_first(write)
    _see(sign, key, processes)
    processes.any_of(False)  # all have seen it
    if processes.is_first:
        sign.unlink()


def _see(path: Path, key: str, processes: Processes) -> None:
    """Wait until a file of the first process is seen, which a network file system may show seconds later."""
    deadline = time.monotonic() + SHARED_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise user_error(
                f"{key}: process {processes.rank + 1} of {processes.size} does not see {path}, "
                "which the first process has written",
                f"give a folder that all machines share, as in {key}=/shared/store",
            )
        time.sleep(0.1)
