"""distill-store: it shows what is there, finds what has changed, and removes nothing that somebody needs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import InProcess
from distill_run.commands import installed, inventory
from distill_run.commands import store as store_command
from distill_run.commands.inventory import Entry, list_entries, records
from distill_run.files import write_json
from distill_run.listener import NOBODY
from distill_run.store import Store
from distill_run.store_records import read_meta
from distill_run.units import age

NAMES = {letter: letter * 64 for letter in "abcdef"}
A, B, C, D = (NAMES[letter] for letter in "abcd")

Ask = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def ask(root: Path, in_process: InProcess) -> Ask:
    """Runs distill-store on the store: exit status, lines of stdout, stderr."""

    def call(*arguments: str, store_dir: Path = root) -> tuple[int, list[str], str]:
        status, out, err = in_process(installed.store, "distill-store", *arguments, "--store-dir", str(store_dir))
        return status, out.splitlines(), err

    return call


def store_at(root: Path) -> Store:
    return Store(root, NOBODY)


def add(root: Path, kind: str, name: str, num_bytes: int = 1000, about: str = "cnn_tiny, seed 0") -> Path:
    """An entry whose file has so many bytes; meta.json is not counted in."""

    def make(folder: Path) -> dict[str, Any]:
        (folder / "weights.pt").write_bytes(b"w" * num_bytes)
        return {"about": about}

    return store_at(root).obtain(kind, name, make)[0]


def add_view(root: Path, name: str, number: int) -> Path:
    def make(path: Path) -> None:
        path.write_bytes(b"view" * (number + 1))

    return store_at(root).obtain_part("logits", name, f"view_{number}.npy", make)


def add_run(run_dir: Path, root: Path, *entries: str) -> Path:
    """A run's folder, and the records of the entries that it uses."""
    run_dir.mkdir(parents=True)
    for entry in entries:
        kind, _, name = entry.partition("/")
        Store(root, NOBODY, run_dir=run_dir).record_use(kind, name)
    return run_dir


def date_back(entry: Path, **span: float) -> None:
    created = datetime.now(UTC) - timedelta(**span)
    write_json(entry / "meta.json", {**read_meta(entry), "created": created.isoformat()})


def entries_of(root: Path) -> set[str]:
    """The entries that are there, as in teacher/a."""
    return {f"{path.parent.name}/{path.name[0]}" for path in root.glob("[!.]*/[!.]*")}


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies below a folder, byte for byte."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def is_empty(root: Path) -> bool:
    """Whether nothing is left but the folders that mark a store."""
    return not any(path.name not in (".locks", ".runs") or any(path.iterdir()) for path in root.iterdir())


@contextmanager
def held(root: Path, kind: str, name: str) -> Iterator[None]:
    """Another process holds the entry's lock."""
    program = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
    path = root / ".locks" / f"{kind}-{name}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate(timeout=30)


# What ls says.


def test_an_entry_is_listed_with_its_size_its_age_and_its_users(root: Path, ask: Ask, tmp_path: Path) -> None:
    entry = add(root, "teacher", A, 1_230_000, "cnn_large, seed 3, 97.20% on validation")
    date_back(entry, hours=3, minutes=10)
    add_run(tmp_path / "runs" / "1", root, f"teacher/{A}")
    assert ask("ls") == (
        0,
        [
            "teacher   aaaaaaaaaaaa   1.23MB       3 h     1 run  cnn_large, seed 3, 97.20% on validation",
            "1 entry, 1.23MB, 0 of them unused",
        ],
        "",
    )


def test_entries_stand_by_kind_and_the_oldest_first(root: Path, ask: Ask, tmp_path: Path) -> None:
    for kind, name, days in (("teacher", A, 3), ("teacher", B, 9), ("baseline", C, 5), ("logits", D, 7)):
        date_back(add(root, kind, name), days=days)
    add_run(tmp_path / "first", root, f"teacher/{A}", f"logits/{D}")
    add_run(tmp_path / "second", root, f"teacher/{A}")
    _, lines, _ = ask("ls")
    columns = [re.split(r"\s{2,}", re.sub(r"[\d.]+kB", "", line)) for line in lines]
    assert [" ".join(line[:-1]).split() for line in columns[:-1]] == [
        ["baseline", "c" * 12, "5", "days", "unused"],
        ["logits", "d" * 12, "7", "days", "1", "run"],
        ["teacher", "b" * 12, "9", "days", "unused"],
        ["teacher", "a" * 12, "3", "days", "2", "runs"],
    ]
    assert lines[-1].endswith(", 2 of them unused")
    assert lines[-1].startswith("4 entries, ")


def test_an_age_is_told_in_the_largest_unit_of_which_there_are_two(root: Path, ask: Ask) -> None:
    hour, day = 3600, 86400
    ages = {0: "0 s", 119: "119 s", 120: "2 min", 2 * hour - 1: "120 min", 2 * hour: "2 h", 2 * day - 1: "48 h"}
    assert {seconds: age(seconds) for seconds in ages} == ages
    assert (age(2 * day), age(400 * day)) == ("2 days", "400 days")
    date_back(add(root, "teacher", A), hours=-5)  # by a clock that runs ahead
    assert "  0 s  " in re.sub(r" +0 s", "  0 s", ask("ls")[1][0])


def test_a_time_without_a_zone_is_read(root: Path, ask: Ask) -> None:
    for name, created in ((A, "2020-01-01T00:00:00"), (B, "2021-01-01T00:00:00+02:00")):
        entry = add(root, "teacher", name)
        write_json(entry / "meta.json", {**read_meta(entry), "created": created})
    status, lines, _ = ask("ls")
    assert status == 0
    assert [line[10] for line in lines[:2]] == ["a", "b"]


def test_a_run_whose_folder_is_gone_uses_nothing(root: Path, ask: Ask, tmp_path: Path) -> None:
    add(root, "teacher", A)
    run_dir = add_run(tmp_path / "run", root, f"teacher/{A}")
    assert "  1 run  " in ask("ls")[1][0]
    run_dir.rmdir()
    assert "  unused  " in ask("ls")[1][0]


def test_an_empty_store_has_no_entries(root: Path, ask: Ask) -> None:
    root.mkdir()
    assert ask("ls") == (0, ["0 entries, 0B, 0 of them unused"], "")
    assert ask("verify") == (0, ["0 entries, 0B, 0 damaged"], "")
    assert ask("gc") == (0, ["0 entries, 0B removed"], "")
    assert ask("ls")[0] == 0


def test_an_entry_without_a_meta_that_can_be_read_is_listed_found_damaged_and_removed(root: Path, ask: Ask) -> None:
    for content in (None, b'{"files": ', b"[]", b'{"files": {}}', b'{"created": 7, "about": "x"}', b"\xff"):
        meta = add(root, "teacher", A) / "meta.json"
        meta.unlink()
        if content is not None:
            meta.write_bytes(content)
        status, lines, _ = ask("ls")
        assert status == 0, content
        assert lines[0].endswith("  its meta.json cannot be read"), content
        status, lines, err = ask("verify")
        assert (status, err) == (1, ""), content
        assert lines[0] == "teacher   aaaaaaaaaaaa  damaged: meta.json; it is made again when a run needs it"
        ask("gc")
        assert is_empty(root), content


# What verify finds.


def test_a_sound_store_is_sound(root: Path, ask: Ask) -> None:
    add(root, "teacher", A, 100_000)
    entry = add(root, "logits", B, 100_300)
    add_view(root, B, 3)
    add_view(root, B, 99)
    assert (entry / "view_99.npy").stat().st_size == 400  # and two meta.json of some hundred bytes
    assert ask("verify") == (0, ["2 entries, 201kB, 0 damaged"], "")
    assert ask("ls")[1][-1] == "2 entries, 201kB, 2 of them unused"


def test_every_file_that_has_changed_is_named_and_the_store_is_only_looked_at(root: Path, ask: Ask) -> None:
    (add(root, "teacher", "a" * 63 + "1") / "weights.pt").write_bytes(b"v" + b"w" * 999)
    (add(root, "teacher", "a" * 63 + "2") / "weights.pt").write_bytes(b"w" * 999)
    (add(root, "teacher", B) / "weights.pt").unlink()
    entry = add(root, "logits", A)
    for number in range(4):
        add_view(root, A, number)
    (entry / "view_1.npy").write_bytes(b"vie")
    (entry / "view_3.npy").unlink()
    add(root, "teacher", C)
    before = tree(root)
    status, lines, _ = ask("verify")
    again = "it is made again when a run needs it"
    assert status == 1
    assert sorted(lines[:-1]) == [
        f"logits    aaaaaaaaaaaa  damaged: view_1.npy, view_3.npy; {again}",
        *[f"teacher   {letter * 12}  damaged: weights.pt; {again}" for letter in "aab"],
    ]
    assert lines[-1].startswith("5 entries, ")
    assert lines[-1].endswith(", 4 damaged")
    ask("ls")
    assert tree(root) == before


# What gc removes.


def test_what_no_run_uses_is_removed_and_the_rest_is_kept(root: Path, ask: Ask, tmp_path: Path) -> None:
    for kind, name in (("teacher", A), ("teacher", B), ("baseline", A), ("logits", C)):
        add(root, kind, name, 100_000, f"the {kind} {name[0]}")
    add_run(tmp_path / "kept", root, f"teacher/{A}")
    gone = add_run(tmp_path / "gone", root, f"teacher/{A}", f"logits/{C}")
    gone.rmdir()
    status, lines, err = ask("gc")
    assert (status, err) == (0, "")
    assert lines == [
        "baseline  aaaaaaaaaaaa  removed  the baseline a",
        "logits    cccccccccccc  removed  the logits c",
        "teacher   bbbbbbbbbbbb  removed  the teacher b",
        "3 entries, 301kB removed",
    ]
    assert entries_of(root) == {"teacher/a"}
    assert [path.name for path in (root / ".locks").iterdir()] == [f"teacher-{A}"]
    (record,) = (root / ".runs").iterdir()
    assert json.loads(record.read_text())["run"] == "../kept"
    assert sorted(path.name for path in root.iterdir()) == [".locks", ".runs", "teacher"]
    assert ask("gc")[1] == ["0 entries, 0B removed"]


def test_a_dry_run_says_the_same_and_touches_nothing(root: Path, ask: Ask, tmp_path: Path) -> None:
    add(root, "teacher", A, 100_000)
    add(root, "teacher", B)
    add_run(tmp_path / "gone", root, f"teacher/{A}").rmdir()
    add_run(tmp_path / "kept", root, f"teacher/{B}")
    (root / "teacher" / f".{C}-x7").mkdir()
    for lock in (root / ".locks").iterdir():
        lock.unlink()
    before = tree(root)
    status, lines, _ = ask("gc", "--dry-run")
    assert status == 0
    assert lines == [
        "teacher   aaaaaaaaaaaa  would be removed  cnn_tiny, seed 0",
        "teacher   cccccccccccc  would be removed  left half made",
        "2 entries, 100kB would be removed",
    ]
    assert tree(root) == before


def test_an_entry_that_another_process_holds_is_kept_and_that_is_said(root: Path, ask: Ask) -> None:
    add(root, "teacher", A)
    add(root, "teacher", B)
    for option in ("--dry-run", None):
        with held(root, "teacher", A):
            status, lines, _ = ask("gc", *([option] if option else []))
        assert status == 0
        assert lines[0] == "teacher   aaaaaaaaaaaa  is in use by another process: kept"
        assert lines[-1].startswith("1 entry, ")
    assert entries_of(root) == {"teacher/a"}
    ask("gc")
    assert is_empty(root)


def test_what_a_killed_process_left_is_removed_but_not_what_one_is_making(root: Path, ask: Ask) -> None:
    (root / ".locks").mkdir(parents=True)
    for name in (A, B):
        working = root / "teacher" / f".{name}-x_7abc12"
        working.mkdir(parents=True)
        (working / "weights.pt").write_bytes(b"half")
    with held(root, "teacher", A):
        _, lines, _ = ask("gc")
    assert lines == [
        "teacher   aaaaaaaaaaaa  is in use by another process: kept",
        "teacher   bbbbbbbbbbbb  removed  left half made",
        "1 entry, 4B removed",
    ]
    assert [path.name for path in (root / "teacher").iterdir()] == [f".{A}-x_7abc12"]


def test_half_a_view_of_a_killed_process_is_removed_from_an_entry_that_is_used(
    root: Path, ask: Ask, tmp_path: Path
) -> None:
    entry = add(root, "logits", A)
    add_view(root, A, 0)
    add_run(tmp_path / "run", root, f"logits/{A}")
    half = entry / ".view_1.npy.4711.tmp"
    half.write_bytes(b"half a view")
    with held(root, "logits", A):
        assert ask("gc")[1][0] == "logits    aaaaaaaaaaaa  is in use by another process: kept"
    assert half.exists()
    assert ask("gc")[1] == ["logits    aaaaaaaaaaaa  removed  left half made", "1 entry, 11B removed"]
    assert sorted(path.name for path in entry.iterdir()) == ["meta.json", "view_0.npy", "weights.pt"]
    assert ask("verify")[0] == 0


def test_a_run_that_begins_to_use_an_entry_meanwhile_keeps_it(
    root: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(root, "teacher", A)

    def list_and_begin(folder: Path) -> list[Entry]:
        entries = list_entries(folder)
        add_run(tmp_path / "run", root, f"teacher/{A}")
        return entries

    monkeypatch.setattr("distill_run.commands.collect.list_entries", list_and_begin)
    assert ask("gc")[1] == ["teacher   aaaaaaaaaaaa  a run has just begun to use it: kept", "0 entries, 0B removed"]
    assert entries_of(root) == {"teacher/a"}


def test_the_records_are_read_once_for_all_entries_unless_one_is_written(
    root: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (A, B, C, D):
        add(root, "teacher", name)
    add_run(tmp_path / "run", root, f"teacher/{A}")
    os.utime(root / ".runs", (1e9, 1e9))  # long ago: a folder that has just changed is read again
    reads = 0

    def count(root: Path) -> dict[Path, tuple[Path, list[str]]]:
        nonlocal reads
        reads += 1
        return records(root)

    monkeypatch.setattr(inventory, "records", count)
    users = inventory.Users(root)
    entries = [root / "teacher" / name for name in (A, B, C, D)]
    assert [len(users.of(entry)) for entry in entries] == [1, 0, 0, 0]
    assert reads == 1
    add_run(tmp_path / "other", root, f"teacher/{B}")
    assert users.of(entries[1]) == [tmp_path / "other"]
    shutil.rmtree(tmp_path / "other")
    assert users.of(entries[1]) == []


def test_references_survive_a_move_of_store_and_runs_together_and_a_link_to_the_store(
    root: Path, ask: Ask, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "there"
    add(here / "store", "teacher", A)
    add(here / "store", "teacher", B)
    add_run(here / "runs" / "1", here / "store", f"teacher/{A}")
    there.parent.mkdir()
    here.rename(there)
    (tmp_path / "far").mkdir()
    link = tmp_path / "far" / "away"
    link.symlink_to(there / "store")
    ask("gc", store_dir=link)
    assert entries_of(there / "store") == {"teacher/a"}


# What is none of the store's.


def test_foreign_files_are_neither_listed_nor_removed(root: Path, ask: Ask) -> None:
    add(root, "teacher", A)
    foreign = [
        "README", "teacher/notes.txt", "teacher/mine/precious", ".hidden/precious", f"teacher/{B}", "empty/",
        "teacher/.DS_Store", "teacher/.cache-1/precious", f".hidden/{C}/precious", ".locks/.DS_Store",
        ".locks/x-y", ".runs/notes.txt",
    ]  # fmt: skip
    for name in foreign:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            (root / name).write_text("precious")
    assert ask("ls")[1][-1].startswith("1 entry, ")
    assert ask("verify")[0] == 0
    assert ask("gc")[1][-1].startswith("1 entry, ")
    assert not (root / "teacher" / A).exists()
    assert all((root / name).exists() for name in foreign)


def test_a_folder_that_is_no_store_is_left_alone(root: Path, ask: Ask, tmp_path: Path) -> None:
    remedy = "name the store with --store-dir DIR; the first run makes it"
    assert ask("ls") == (1, [], f"error: {root} is not a folder\n  {remedy}\n")
    root.write_text("")
    assert ask("ls") == (1, [], f"error: {root} is not a folder\n  {remedy}\n")
    (tmp_path / "layers" / A).mkdir(parents=True)
    for action in ("ls", "verify", "gc"):
        assert ask(action, store_dir=tmp_path) == (1, [], f"error: {tmp_path} is not a store\n  {remedy}\n")
    assert (tmp_path / "layers" / A).is_dir()


def test_nothing_is_removed_while_a_record_cannot_be_read(root: Path, ask: Ask) -> None:
    add(root, "teacher", A)
    record = root / ".runs" / "broken.json"
    record.parent.mkdir()
    remedy = "remove it; entries that only its run uses will then count as unused"
    for content in ('{"run": "../ru', "[]", '{"run": 7, "entries": []}', '{"entries": []}', "{}", "7"):
        record.write_text(content)
        for action in ("ls", "gc"):
            assert ask(action) == (1, [], f"error: {record} cannot be read\n  {remedy}\n")
        assert entries_of(root) == {"teacher/a"}
    record.unlink()
    ask("gc")
    assert is_empty(root)


def test_an_entry_that_cannot_be_removed_does_not_keep_the_others(root: Path, ask: Ask, tmp_path: Path) -> None:
    add(root, "teacher", A)
    elsewhere = tmp_path / "elsewhere"
    (root / "teacher" / A).rename(elsewhere)
    (root / "teacher" / A).symlink_to(elsewhere)
    add(root, "teacher", B)
    status, lines, _ = ask("gc")
    assert status == 0
    assert lines[0].startswith("teacher   aaaaaaaaaaaa  cannot be removed (")
    assert lines[0].endswith("): kept")
    assert (elsewhere / "weights.pt").exists()
    assert not (root / "teacher" / B).exists()


# The command itself.


def test_a_wrong_action_is_told_with_the_right_ones(ask: Ask) -> None:
    status, lines, err = ask("list")
    assert (status, lines) == (1, [])
    first, second = err.splitlines()
    assert first.startswith("error: argument action: invalid choice: 'list' (choose from ")
    assert second == "  write distill-store [-h] [--version] [--store-dir DIR] [--dry-run] {ls,verify,gc}"


def test_the_store_is_the_configurations_where_none_is_named(tmp_path: Path, in_process: InProcess) -> None:
    add(tmp_path / "outputs" / "store", "teacher", A)
    status, out, _ = in_process(installed.store, "distill-store", "ls")
    assert status == 0
    assert out.startswith("teacher   aaaaaaaaaaaa  ")


def test_ctrl_c_ends_it_without_a_traceback(root: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path) -> str:
        raise KeyboardInterrupt

    add(root, "teacher", A)
    monkeypatch.setattr(store_command, "damage", interrupt)
    assert ask("verify") == (130, [], "")


def test_a_store_can_be_looked_at_and_cleaned_while_runs_write_to_it(root: Path, ask: Ask) -> None:
    """A process makes entries and parts as fast as it can; every look succeeds, and whatever it asks for it gets."""
    program = """
import sys, time
from pathlib import Path
from distill_run.listener import Listener
from distill_run.store import Store

class Told(Listener):
    def noted(self, text):
        assert "damaged" not in text

store = Store(Path(sys.argv[1]), Told())

def make(folder):
    (folder / "weights.pt").write_bytes(b"w" * 100_000)
    return {"about": "busy"}

end = time.monotonic() + 3
count = 0
while time.monotonic() < end:
    for name in (f"{count % 16:064x}", f"{count % 7:064x}"):
        path, _ = store.obtain("teacher", name, make)
    count += 1
print(count)
"""
    root.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    num_removed = 0
    while process.poll() is None:
        for action in ("ls", "gc", "verify"):
            status, lines, err = ask(action)
            assert (status, err) == (0, ""), lines
            num_removed += sum("  removed  " in line for line in lines)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert int(out) > 10
    assert num_removed > 3
