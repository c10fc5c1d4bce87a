"""The command `distill-store`: what the store holds, whether it is sound, and what no run needs any more.

No torch: it reads names, sizes, hashes and the runs' records of what they use. Only what bears the name of an entry
is looked at or removed, so that other files are safe in a store, and in a folder that is taken for one.
"""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from distill_run.commands.arguments import Parser
from distill_run.config.compose import compose_config
from distill_run.console import Console
from distill_run.errors import leave, user_error
from distill_run.store import LOCKS, META, RUNS, SHOWN_NAME, damage, damaged_parts, read_meta
from distill_run.units import age, quantity

NAME = re.compile(r"[0-9a-f]{64}")
WORKING = re.compile(rf"\.({NAME.pattern})-\w+")  # a folder in which an entry is made
NOT_A_RECORD = (ValueError, LookupError, TypeError)  # what a JSON file of another content leads to


@dataclass(frozen=True)
class Entry:
    """An entry of the store, or what is left of one: what it takes on disk, when it was made, the runs that use it."""

    path: Path
    kind: str
    name: str
    num_bytes: int
    created: datetime
    about: str
    runs: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """Its kind and the beginning of its name."""
        return f"{self.kind:<9} {self.name[:SHOWN_NAME]}"


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake or where an entry is damaged."""
    leave(_run_command)


def _run_command() -> bool:
    """Do what the command line says; whether all is well."""
    parser = Parser(prog="distill-store", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("action", choices=("ls", "verify", "gc"), help="list; check every hash; remove what is unused")
    parser.add_argument(
        "--store-dir", metavar="DIR", type=Path, help="the store; by default the configuration's store_dir"
    )
    parser.add_argument("--dry-run", action="store_true", help="gc: say what would be removed, and keep it")
    arguments = parser.parse_args()
    root = arguments.store_dir or Path(compose_config().store_dir)
    _check_store(root)
    console = Console()
    if arguments.action == "verify":
        return _verify(list_entries(root), console)
    if arguments.action == "gc":
        _collect(root, arguments.dry_run, console)
    else:
        _list(list_entries(root), console)
    return True


def _check_store(root: Path) -> None:
    remedy = "name the store with --store-dir DIR; the first run makes it"
    if not root.is_dir():
        raise user_error(f"{root} is not a folder", remedy)
    if any(root.iterdir()) and not any((root / name).is_dir() for name in (LOCKS, RUNS)):
        raise user_error(f"{root} is not a store", remedy)


def list_entries(root: Path) -> list[Entry]:
    """All entries, of each kind the oldest first."""
    runs = _runs_of(root)
    entries = []
    for path in _in_kinds(root):
        if NAME.fullmatch(path.name) and path.is_dir():
            with suppress(FileNotFoundError):  # another process has just removed it
                entries.append(_read_entry(path, runs))
    return sorted(entries, key=lambda entry: (entry.kind, entry.created, entry.name))


def _in_kinds(root: Path) -> Iterator[Path]:
    """What lies in the folders of the kinds."""
    for kind in _children(root):
        if not kind.name.startswith("."):
            yield from _children(kind)


def _children(folder: Path) -> list[Path]:
    """What a folder holds: nothing, if it is none, or none any more."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_entry(path: Path, runs: dict[str, list[Path]]) -> Entry:
    kind, name = path.parent.name, path.name
    try:
        meta: dict[str, Any] = read_meta(path)
        created, about = datetime.fromisoformat(meta["created"]).astimezone(UTC), str(meta["about"])
    except (OSError, *NOT_A_RECORD):
        created, about = _changed(path), f"its {META} cannot be read"
    return Entry(path, kind, name, _num_bytes(path), created, about, tuple(runs.get(f"{kind}/{name}", ())))


def _list_leftovers(root: Path) -> list[Entry]:
    """What is half made: by a process at work, which holds the entry's lock, or by one that was killed."""
    found = []
    for path in _in_kinds(root):
        if (match := WORKING.fullmatch(path.name)) and path.is_dir():
            found.append((path, path.parent.name, match[1]))
        elif NAME.fullmatch(path.name):
            halves = [file for file in _children(path) if file.name.startswith(".") and file.suffix == ".tmp"]
            found += [(half, path.parent.name, path.name) for half in halves]
    entries = []
    for path, kind, name in found:
        with suppress(FileNotFoundError):  # its maker has just finished it
            entries.append(Entry(path, kind, name, _num_bytes(path), _changed(path), "left half made"))
    return entries


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _num_bytes(path: Path) -> int:
    total = 0
    for file in (path, *(Path(folder, name) for folder, _, names in os.walk(path) for name in names)):
        with suppress(FileNotFoundError):  # a temporary name, while the entry grows
            total += file.stat().st_size if file.is_file() else 0
    return total


def _runs_of(root: Path) -> dict[str, list[Path]]:
    """The runs whose folders are still there, by the entries that they use."""
    users: dict[str, list[Path]] = defaultdict(list)
    for run_dir, names in _records(root).values():
        for name in names if run_dir.is_dir() else ():
            users[name].append(run_dir)
    return users


def _records(root: Path) -> dict[Path, tuple[Path, list[str]]]:
    """What each run has noted: its folder, and the entries that it uses."""
    records = {}
    for path in _children(root / RUNS):
        if path.name.startswith(".") or path.suffix != ".json":
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            records[path] = ((root / content["run"]).resolve(), list(content["entries"]))
        except FileNotFoundError:  # another process has just removed it
            continue
        except (OSError, *NOT_A_RECORD) as error:
            remedy = "remove it; what only its run uses counts as unused then"
            raise user_error(f"{path} cannot be read", remedy) from error
    return records


def _list(entries: list[Entry], console: Console) -> None:
    now = datetime.now(UTC)
    for entry in entries:
        users = f"{len(entry.runs)} run{'' if len(entry.runs) == 1 else 's'}" if entry.runs else "unused"
        span = age(max(0, (now - entry.created).total_seconds()))  # clocks of two machines may differ
        console.note(f"{entry.title}  {quantity(entry.num_bytes) + 'B':>7}  {span:>8}  {users:>8}  {entry.about}")
    console.note(f"{_counted(entries)}, {sum(not entry.runs for entry in entries)} of them unused")


def _verify(entries: list[Entry], console: Console) -> bool:
    """Say which entries' bytes have changed; true where none has."""
    num_damaged = 0
    for entry in entries:
        if (names := _damages(entry.path)) and entry.path.is_dir():
            num_damaged += 1
            console.note(f"{entry.title}  damaged: {', '.join(names)}; it is made again when a run needs it")
    console.note(f"{_counted(entries)}, {num_damaged} damaged")
    return num_damaged == 0


def _damages(folder: Path) -> list[str]:
    """The first damaged file of an entry, or else its damaged parts."""
    if name := damage(folder):
        return [name]
    try:
        return damaged_parts(folder)
    except OSError as error:
        return [Path(error.filename).name]
    except (*NOT_A_RECORD, AttributeError):
        return [META]


def _collect(root: Path, is_dry: bool, console: Console) -> None:
    """Remove entries, what killed processes have left, and the records of runs that are gone."""
    unused = [entry for entry in list_entries(root) if not entry.runs]
    removed = []
    for entry in [*unused, *_list_leftovers(root)]:
        if why := _why_kept(entry, root, is_dry):
            console.note(f"{entry.title}  {why}: kept")
        elif is_dry or not entry.path.exists():
            removed.append(entry)
            console.note(f"{entry.title}  {'would be ' if is_dry else ''}removed  {entry.about}")
    if not is_dry:
        _sweep_up(root)
    console.note(f"{_counted(removed)} {'would be ' if is_dry else ''}removed")


def _why_kept(entry: Entry, root: Path, is_dry: bool) -> str | None:
    """Remove an entry, but not in a dry run, nor where something is in the way: what, is returned."""
    path = root / LOCKS / f"{entry.kind}-{entry.name}"
    try:
        # A dry run writes nothing, not even a lock.
        with nullcontext() if is_dry and not path.exists() else FileLock(path, timeout=0):
            if _runs_of(root).get(f"{entry.kind}/{entry.path.name}"):
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
    """Remove the records of runs that are gone, the locks of entries that are, and the folders of empty kinds."""
    for path, (run_dir, _) in _records(root).items():
        if not run_dir.is_dir():
            path.unlink(missing_ok=True)
    kinds = set()
    for path in _children(root / LOCKS):
        kind, _, name = path.name.partition("-")
        if NAME.fullmatch(name):
            kinds.add(kind)
            with suppress(OSError), FileLock(path, timeout=0):  # held: somebody is about to make it
                if not (root / kind / name).exists():
                    path.unlink()
    for kind in kinds - {path.name.partition("-")[0] for path in _children(root / LOCKS)}:
        with suppress(OSError):  # it is not empty
            (root / kind).rmdir()


def _counted(entries: list[Entry]) -> str:
    total = quantity(sum(entry.num_bytes for entry in entries))
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}, {total}B"
