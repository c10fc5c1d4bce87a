"""The command `distill-store`: what the store holds, whether it is sound, and what no run needs any more.

No torch: it reads names, sizes, hashes and the runs' records of what they use.
"""

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from distill_run.arguments import Parser
from distill_run.config import compose_config
from distill_run.console import Console
from distill_run.errors import UserError, tell, user_error
from distill_run.store import LOCKS, META, RUNS, SHOWN_NAME, damage, damaged_parts, read_meta
from distill_run.units import age, quantity


@dataclass(frozen=True)
class Entry:
    """An entry of the store: its folder, what it takes on disk, when it was made, and the runs that use it."""

    folder: Path
    num_bytes: int
    created: datetime
    about: str
    runs: tuple[Path, ...]

    @property
    def title(self) -> str:
        """Its kind and the beginning of its name."""
        return f"{self.folder.parent.name:<9} {self.folder.name[:SHOWN_NAME]}"


def main() -> NoReturn:
    """Run the command line in sys.argv; exits with 0, with 1 after a mistake or where an entry is damaged."""
    parser = Parser(prog="distill-store", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("ls", "verify", "gc"), help="list; check every hash; remove what is unused")
    parser.add_argument("--store-dir", type=Path, help="the store; by default the configuration's store_dir")
    parser.add_argument("--dry-run", action="store_true", help="gc: say what would be removed, and keep it")
    try:
        arguments = parser.parse_args()
        root = arguments.store_dir or Path(compose_config().store_dir)
        if not root.is_dir():
            raise user_error(f"{root} is not a folder", "name the store, as in --store-dir outputs/store")
        is_sound = _act(arguments.action, root, arguments.dry_run, Console())
    except UserError as error:
        tell(error)
        sys.exit(1)
    sys.exit(0 if is_sound else 1)


def _act(action: str, root: Path, is_dry: bool, console: Console) -> bool:
    entries = list_entries(root)
    if action == "verify":
        return _verify(entries, console)
    if action == "gc":
        _collect(root, [entry for entry in entries if not entry.runs], is_dry, console)
    else:
        _list(entries, console)
    return True


def list_entries(root: Path) -> list[Entry]:
    """All entries, of each kind the oldest first."""
    runs = _runs_of(root)
    entries = [_read_entry(folder, runs) for folder in root.glob("[!.]*/[!.]*") if folder.is_dir()]
    return sorted(entries, key=lambda entry: (entry.folder.parent.name, entry.created, entry.folder.name))


def _runs_of(root: Path) -> dict[str, list[Path]]:
    """The runs whose folders are still there, by the entries that they use."""
    users: dict[str, list[Path]] = defaultdict(list)
    for run_dir, names in _records(root).values():
        for name in names if run_dir.is_dir() else ():
            users[name].append(run_dir)
    return users


def _records(root: Path) -> dict[Path, tuple[Path, list[str]]]:
    """What each run has noted: its folder, and the entries that it uses."""
    contents = {path: json.loads(path.read_text(encoding="utf-8")) for path in (root / RUNS).glob("[!.]*.json")}
    return {path: ((root / content["run"]).resolve(), content["entries"]) for path, content in contents.items()}


def _read_entry(folder: Path, runs: dict[str, list[Path]]) -> Entry:
    try:
        meta: dict[str, Any] = read_meta(folder)
        created, about = datetime.fromisoformat(meta["created"]), str(meta["about"])
    except (OSError, ValueError, LookupError, TypeError):
        created, about = datetime.fromtimestamp(folder.stat().st_mtime, UTC), f"its {META} cannot be read"
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Entry(folder, num_bytes, created, about, tuple(runs.get(f"{folder.parent.name}/{folder.name}", ())))


def _list(entries: list[Entry], console: Console) -> None:
    now = datetime.now(UTC)
    for entry in entries:
        users = f"{len(entry.runs)} run{'' if len(entry.runs) == 1 else 's'}" if entry.runs else "unused"
        span = age((now - entry.created).total_seconds())
        console.note(f"{entry.title}  {quantity(entry.num_bytes) + 'B':>7}  {span:>8}  {users:>8}  {entry.about}")
    console.note(f"{_counted(entries)}, {sum(not entry.runs for entry in entries)} of them unused")


def _verify(entries: list[Entry], console: Console) -> bool:
    """Say which entries' bytes have changed; true where none has."""
    damaged = {entry.title: found for entry in entries if (found := list(_damages(entry.folder)))}
    for title, names in damaged.items():
        console.note(f"{title}  damaged: {', '.join(names)}; it is made again when a run needs it")
    console.note(f"{_counted(entries)}, {len(damaged)} damaged")
    return not damaged


def _damages(folder: Path) -> Iterator[str]:
    if name := damage(folder):
        yield name
    else:
        yield from damaged_parts(folder)


def _collect(root: Path, unused: list[Entry], is_dry: bool, console: Console) -> None:
    """Remove entries, what killed processes have left, and the records of runs that are gone."""
    removed = []
    for entry in unused:
        kind, name = entry.folder.parent.name, entry.folder.name
        lock = FileLock(root / LOCKS / f"{kind}-{name}")
        try:
            with lock.acquire(timeout=0):
                if not is_dry:
                    shutil.rmtree(entry.folder)
        except Timeout:
            console.note(f"{entry.title}  is in use by another process: kept")
            continue
        removed.append(entry)
        console.note(f"{entry.title}  {'would be ' if is_dry else ''}removed  {entry.about}")
    if not is_dry:
        _sweep_up(root)
    console.note(f"{_counted(removed)} {'would be ' if is_dry else ''}removed")


def _sweep_up(root: Path) -> None:
    for path, (run_dir, _) in _records(root).items():
        if not run_dir.is_dir():
            path.unlink()
    for path in (root / LOCKS).glob("*"):
        kind, _, name = path.name.partition("-")
        lock = FileLock(path)
        try:
            with lock.acquire(timeout=0):
                for orphan in (root / kind).glob(f".{name}-*"):
                    shutil.rmtree(orphan)
                if not (root / kind / name).exists():
                    path.unlink()
        except Timeout:
            continue
    for folder in root.glob("*"):
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def _counted(entries: list[Entry]) -> str:
    total = quantity(sum(entry.num_bytes for entry in entries))
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}, {total}B"
