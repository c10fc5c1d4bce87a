"""The command `distill-store`: lists what the store holds, verifies it, and removes what no run uses.

No torch: the command reads names, sizes, hashes and the records of what the runs use.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from distill_run.commands.arguments import Parser
from distill_run.commands.collect import collect
from distill_run.commands.inventory import Entry, counted, list_entries
from distill_run.config.settings import compose_config
from distill_run.console.console import Console
from distill_run.errors import user_error
from distill_run.store import LOCKS, RUNS
from distill_run.store_records import META, NOT_A_RECORD, damage, damaged_parts
from distill_run.units import age, quantity

ABOUT = "List what the store holds, verify it, or remove what no run uses."


def run_command(words: Sequence[str]) -> bool:
    """Do what the words after `distill-store` say; false where an entry is damaged."""
    parser = Parser(prog="distill-store", description=ABOUT)
    parser.add_argument("action", choices=("ls", "verify", "gc"), help="list; check every hash; remove what is unused")
    parser.add_argument("--store-dir", metavar="DIR", type=Path, help="by default, store_dir of the configuration")
    parser.add_argument("--dry-run", action="store_true", help="gc: say what would be removed, and keep it")
    arguments = parser.parse_args(words)
    root = arguments.store_dir or Path(compose_config().store_dir)
    _check_store(root)
    console = Console()
    if arguments.action == "verify":
        return _verify(list_entries(root), console)
    if arguments.action == "gc":
        collect(root, arguments.dry_run, console)
    else:
        _list(list_entries(root), console)
    return True


def _check_store(root: Path) -> None:
    remedy = "name the store with --store-dir DIR; the first run makes it"
    if not root.is_dir():
        raise user_error(f"{root} is not a folder", remedy)
    if any(root.iterdir()) and not any((root / name).is_dir() for name in (LOCKS, RUNS)):
        raise user_error(f"{root} is not a store", remedy)


def _list(entries: list[Entry], console: Console) -> None:
    now = datetime.now(UTC)
    for entry in entries:
        users = f"{len(entry.runs)} run{'' if len(entry.runs) == 1 else 's'}" if entry.runs else "unused"
        span = age(max(0, (now - entry.created).total_seconds()))  # the clocks of two machines may differ
        console.note(f"{entry.title}  {quantity(entry.num_bytes) + 'B':>7}  {span:>8}  {users:>8}  {entry.about}")
    console.note(f"{counted(entries)}, {sum(not entry.runs for entry in entries)} of them unused")


def _verify(entries: list[Entry], console: Console) -> bool:
    """Say which entries have changed since they were written; true where none has."""
    num_damaged = 0
    for entry in entries:
        if (names := _damages(entry.path)) and entry.path.is_dir():
            num_damaged += 1
            console.note(f"{entry.title}  damaged: {', '.join(names)}; it is made again when a run needs it")
    console.note(f"{counted(entries)}, {num_damaged} damaged")
    return num_damaged == 0


def _damages(folder: Path) -> list[str]:
    """The first damaged file of an entry, or else its damaged parts."""
    if name := damage(folder):
        return [name]
    try:
        return damaged_parts(folder)
    except FileNotFoundError as error:
        return [Path(error.filename).name]
    except NOT_A_RECORD:
        return [META]
