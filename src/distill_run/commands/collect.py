"""What `distill-store gc` does: removes what no run uses, and what killed processes have left."""

import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from distill_run.commands.inventory import NAME, Entry, Users, children, counted, list_entries, list_leftovers, records
from distill_run.console.console import Console
from distill_run.store import LOCKS


def collect(root: Path, is_dry: bool, console: Console) -> None:
    """Remove unused entries, leftovers, and the records of runs that are gone; a dry run only says what it would do."""
    users = Users(root)
    unused = [entry for entry in list_entries(root) if not entry.runs]
    removed = []
    for entry in [*unused, *list_leftovers(root)]:
        if why := _remove(entry, root, is_dry, users):
            console.note(f"{entry.title}  {why}: kept")
        elif is_dry or not entry.path.exists():
            removed.append(entry)
            console.note(f"{entry.title}  {'would be ' if is_dry else ''}removed  {entry.about}")
    if not is_dry:
        _sweep_up(root)
    console.note(f"{counted(removed)} {'would be ' if is_dry else ''}removed")


def _remove(entry: Entry, root: Path, is_dry: bool, users: Users) -> str | None:
    """Remove an entry, except in a dry run; returns the reason where it has to be kept."""
    path = root / LOCKS / f"{entry.kind}-{entry.name}"
    try:
        # A dry run writes nothing, not even a lock.
        with nullcontext() if is_dry and not path.exists() else FileLock(path, timeout=0):
            if users.of(entry.path):
                return "a run has just begun to use it"
            if entry.path.is_file() and not is_dry:
                entry.path.unlink()
            elif entry.path.is_dir() and not is_dry:
                shutil.rmtree(entry.path)
    except Timeout:
        return "is in use by another process"
    except OSError as error:
        return f"cannot be removed ({error.strerror or error})"
    return None


def _sweep_up(root: Path) -> None:
    """Remove the records of runs that are gone, the locks of entries that are gone, and folders that became empty."""
    for path, (run_dir, _) in records(root).items():
        if not run_dir.is_dir():
            path.unlink(missing_ok=True)
    kinds = set()
    for path in children(root / LOCKS):
        kind, _, name = path.name.partition("-")
        if NAME.fullmatch(name):
            kinds.add(kind)
            with suppress(OSError), FileLock(path, timeout=0):  # where it is held, somebody is about to make the entry
                if not (root / kind / name).exists():
                    path.unlink()
    for kind in kinds - {path.name.partition("-")[0] for path in children(root / LOCKS)}:
        with suppress(OSError):  # the folder is not empty
            (root / kind).rmdir()
