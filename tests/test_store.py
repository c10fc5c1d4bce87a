"""The store: fingerprints that mean the inputs, entries that are whole or absent."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_run.files import atomic_path, write_json, write_json_lines, write_text
from distill_run.fingerprints import canonical, file_hash, fingerprint_of
from distill_run.listener import NOBODY, Listener
from distill_run.store import Store
from distill_run.store_records import damage, damaged_parts, read_meta, read_uses
from helpers import examples, message_of

leaves = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10) | st.text(max_size=5)
inputs_strategy = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=2), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def reordered(value: Any) -> Any:
    """The same inputs, written in another way: keys backwards, tuples for lists, floats for whole numbers."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    if isinstance(value, list):
        return tuple(reordered(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def test_the_fingerprint_is_the_sha256_of_sorted_json() -> None:
    """From: printf '{"format": 3, "inputs": {"a": [1, 0.5, null], "b": {"c": "x", "d": true}}}' | sha256sum."""
    expected = "69c87b191ea5afe708f9508e4185eb9138e45eb941d680295fc77ecbb2d4515f"
    assert fingerprint_of({"b": {"d": True, "c": "x"}, "a": (1.0, 0.5, None)}) == expected


@examples
@given(inputs=inputs_strategy)
def test_the_same_inputs_written_in_another_way_have_the_same_fingerprint(inputs: dict[str, Any]) -> None:
    assert fingerprint_of(reordered(inputs)) == fingerprint_of(inputs)


@examples
@given(first=inputs_strategy, second=inputs_strategy)
def test_inputs_that_differ_have_fingerprints_that_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    is_same = json.dumps(canonical(first), sort_keys=True) == json.dumps(canonical(second), sort_keys=True)
    assert (fingerprint_of(first) == fingerprint_of(second)) is is_same


def test_every_change_changes_the_fingerprint() -> None:
    inputs = {"lr": 0.1, "widths": [8, 16], "norm": True, "name": "4"}
    changes = (
        {"norm": 1}, {"norm": None}, {"name": 4}, {"new": None}, {"lr": 0.1000000001}, {"widths": [16, 8]},
        {"widths": [8, 16, []]}, {"widths": "[8, 16]"},
    )  # fmt: skip
    fingerprints = [fingerprint_of({**inputs, **change}) for change in changes]
    without = fingerprint_of({key: inputs[key] for key in ("lr", "widths", "norm")})
    assert len({fingerprint_of(inputs), without, *fingerprints}) == 2 + len(changes)
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            fingerprint_of({"lr": [number]})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Told(Listener):
    """Keeps what the store says."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def noted(self, text: str) -> None:
        self.texts.append(text)


def make_store(folder: Path) -> Store:
    return Store(folder, NOBODY)


def leave_empty(folder: Path) -> dict[str, Any]:
    """Make an entry without a file of its own."""
    return {}


def leave_weights(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_text("w", encoding="utf-8")
    return {"about": "a letter"}


def test_an_entry_is_made_once_and_knows_its_facts_and_its_files(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder)
        return leave_weights(folder)

    first, was_there = store.obtain("teacher", "f" * 64, make)
    again, was_there_again = store.obtain("teacher", "f" * 64, make)
    assert (was_there, was_there_again) == (False, True)
    assert first == again == tmp_path / "store" / "teacher" / ("f" * 64)
    assert len(made) == 1
    assert sorted(path.name for path in first.iterdir()) == ["meta.json", "weights"]
    assert list(first.parent.iterdir()) == [first]
    meta = read_meta(first)
    assert meta["about"] == "a letter"
    assert store.obtain("baseline", "f" * 64, leave_empty) == (tmp_path / "store" / "baseline" / ("f" * 64), False)
    assert meta["files"].keys() == {"weights", "meta.json"}
    # echo -n w | sha256sum
    assert meta["files"]["weights"] == "50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_entry_whose_making_fails_is_not_there(tmp_path: Path, error: type[BaseException]) -> None:
    store = make_store(tmp_path / "outputs" / "store")

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half", encoding="utf-8")
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        store.obtain("teacher", "a", fail)
    assert list(tmp_path.iterdir()) == []
    assert store.obtain("teacher", "a", leave_empty)[1] is False


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    orphan = tmp_path / "teacher" / f".{'a' * 64}-x7"
    orphan.mkdir(parents=True)
    (orphan / "weights").write_text("half", encoding="utf-8")
    path, was_there = make_store(tmp_path).obtain("teacher", "a" * 64, leave_weights)
    assert not was_there
    assert list(path.parent.iterdir()) == [path]


def test_of_many_that_ask_for_an_entry_at_once_one_makes_it_and_the_others_say_that_they_wait(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path, Told(told))
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder)
        while len(told) < 7:  # until all others wait
            time.sleep(0.01)
        return {}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.obtain("teacher", "a" * 64, make), range(8)))
    assert len(made) == 1
    assert {path for path, _ in found} == {tmp_path / "teacher" / ("a" * 64)}
    assert sorted(was_there for _, was_there in found) == [False] + [True] * 7
    assert told == ["teacher aaaaaaaaaaaa is being made by another process; waiting for that"] * 7


def test_one_who_waits_for_long_says_so_again_ever_more_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_run.store.FIRST_WAIT_SECONDS", 0.01)
    told: list[str] = []
    store = Store(tmp_path, Told(told))
    has_begun = threading.Event()

    def make(folder: Path) -> dict[str, Any]:
        has_begun.set()
        while len(told) < 4:
            time.sleep(0.001)
        return {}

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.obtain, "teacher", "a" * 64, make)
        assert has_begun.wait(60)
        second = pool.submit(store.obtain, "teacher", "a" * 64, leave_weights)
    assert (first.result()[1], second.result()[1]) == (False, True)
    assert told[0] == "teacher aaaaaaaaaaaa is being made by another process; waiting for that"
    still = "teacher aaaaaaaaaaaa is still being made by another process; waiting for "
    assert [text.startswith(still) and text.endswith("s") for text in told[1:4]] == [True] * 3


def test_processes_make_an_entry_once_and_take_over_from_one_that_is_killed(tmp_path: Path) -> None:
    """The first maker kills itself with the lock in hand; one of the others makes the entry, once."""
    program = """
import os, signal, sys, time
from pathlib import Path
from distill_run.listener import NOBODY
from distill_run.store import Store

root = Path(sys.argv[1])

def make(folder):
    (folder / "weights").write_text("half")
    try:
        (root / "first").touch(exist_ok=False)
    except FileExistsError:
        with (root / "makers").open("a") as file:
            file.write(f"{os.getpid()} ")
        time.sleep(0.2)
        return {}
    os.kill(os.getpid(), signal.SIGKILL)

print(*Store(root, NOBODY).obtain("teacher", "a", make))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    entry = tmp_path / "teacher" / "a"
    assert sorted(process.returncode for process in processes) == [-signal.SIGKILL, 0, 0, 0]
    assert sorted(outputs) == ["", f"{entry} False", f"{entry} True", f"{entry} True"]
    assert len((tmp_path / "makers").read_text(encoding="utf-8").split()) == 1
    assert list(entry.parent.iterdir()) == [entry]


def race(root: Path, make_second: Callable[[Path], dict[str, Any]]) -> list[Future[tuple[Path, bool]]]:
    """Two threads ask for the same entry of a new store: the first fails as soon as the second waits."""
    told: list[str] = []
    store = Store(root, Told(told))
    has_begun = threading.Event()

    def fail_when_waited_for(folder: Path) -> dict[str, Any]:
        has_begun.set()
        while not told:
            time.sleep(0.001)
        raise ValueError("the first has failed")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.obtain, "teacher", "a" * 64, fail_when_waited_for)
        assert has_begun.wait(60)
        second = pool.submit(store.obtain, "teacher", "a" * 64, make_second)
    return [first, second]


def test_one_who_waits_takes_over_from_a_maker_that_fails_in_a_new_store(tmp_path: Path) -> None:
    """The maker removes the folders that it has made, also that of the lock which the other waits for."""
    first, second = race(tmp_path / "outputs" / "store", leave_weights)
    with pytest.raises(ValueError, match="the first has failed"):
        first.result()
    entry = tmp_path / "outputs" / "store" / "teacher" / ("a" * 64)
    assert second.result() == (entry, False)
    assert (entry / "weights").read_text(encoding="utf-8") == "w"
    assert make_store(tmp_path / "outputs" / "store").obtain("teacher", "a" * 64, leave_empty) == (entry, True)


def test_a_maker_and_one_who_takes_over_both_tell_why_they_fail_and_leave_no_entry(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        raise ValueError("the second has failed")

    for future, message in zip(race(tmp_path / "store", fail), ("the first has", "the second has"), strict=True):
        with pytest.raises(ValueError, match=message):
            future.result()
    assert [path for path in tmp_path.rglob("*") if path.name not in ("store", ".locks")] == []


def test_a_store_records_the_entries_that_its_run_uses(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", NOBODY, run_dir=tmp_path / "run")
    for name in "bab":
        store.obtain("teacher", name, leave_empty)
    (record,) = (tmp_path / "store" / ".runs").iterdir()
    assert read_uses(record) == {"run": "../run", "entries": ["teacher/a", "teacher/b"]}
    make_store(tmp_path / "other").obtain("teacher", "a", leave_empty)
    assert not (tmp_path / "other" / ".runs").exists()


def test_a_damaged_entry_is_made_again_and_that_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path, Told(told))
    path, _ = store.obtain("teacher", "a" * 64, leave_weights)
    damages: list[tuple[str, str | None]] = [("weights", "v"), ("weights", ""), ("weights", None)]
    damages += [("meta.json", None), ("meta.json", '{"files": '), ("meta.json", '{"stage": 1}')]
    for name, content in damages:
        (path / name).unlink()
        if content is not None:
            (path / name).write_text(content, encoding="utf-8")
        assert store.obtain("teacher", "a" * 64, leave_weights) == (path, False)
        assert told.pop() == f"teacher aaaaaaaaaaaa in the store is damaged ({name}): it is made again"
        assert (path / "weights").read_text(encoding="utf-8") == "w"
        assert store.obtain("teacher", "a" * 64, leave_weights) == (path, True)
    assert told == []


def test_an_entry_grows_by_parts_that_are_made_once_and_checked(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path, Told(told))
    entry, _ = store.obtain("logits", "b" * 64, leave_weights)
    made: list[str] = []

    def make(path: Path) -> None:
        made.append(path.name)
        path.write_text("view", encoding="utf-8")

    for _ in range(2):
        assert store.obtain_part("logits", "b" * 64, "view_3.npy", make) == entry / "view_3.npy"
    assert len(made) == 1
    assert damaged_parts(entry) == []
    (entry / "view_3.npy").write_text("vie", encoding="utf-8")
    assert damaged_parts(entry) == ["view_3.npy"]
    assert store.obtain("logits", "b" * 64, leave_weights)[1]  # the entry itself is sound
    store.obtain_part("logits", "b" * 64, "view_3.npy", make)
    assert len(made) == 2
    assert told == ["logits bbbbbbbbbbbb in the store is damaged (view_3.npy): it is made again"]
    assert sorted(path.name for path in entry.iterdir()) == ["meta.json", "view_3.npy", "weights"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_without_room_is_told_in_two_lines(tmp_path: Path, number: int) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half", encoding="utf-8")
        raise OSError(number, os.strerror(number))

    told = message_of(make_store(tmp_path / "store").obtain, "teacher", "a", fail)
    assert told == (
        f"store_dir={tmp_path / 'store'}: {os.strerror(number)}\n"
        "  make room, as distill-store gc does, or choose another folder, as in store_dir=/tmp/elsewhere"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_entry_can_be_read_by_those_who_may_read_its_neighbours(tmp_path: Path) -> None:
    """A store is shared: an entry gets the rights of any other folder, not those of a temporary one."""
    (tmp_path / "teacher").mkdir()
    path, _ = make_store(tmp_path).obtain("teacher", "a", leave_empty)
    assert oct(path.stat().st_mode) == oct(path.parent.stat().st_mode)


def test_an_entry_that_cannot_be_published_is_an_error(tmp_path: Path) -> None:
    def make_while_a_file_stands_in_the_way(folder: Path) -> dict[str, Any]:
        (tmp_path / "teacher" / "a").write_text("no folder", encoding="utf-8")
        return {}

    told = message_of(make_store(tmp_path).obtain, "teacher", "a", make_while_a_file_stands_in_the_way)
    assert told.startswith(f"store_dir={tmp_path}: Not a directory ({tmp_path / 'teacher'}")
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["a"]


def test_an_entry_that_may_not_be_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may be another user's."""
    store = make_store(tmp_path)
    path, _ = store.obtain("teacher", "a", leave_weights)

    def refuse(file: Path, listener: Listener) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr("distill_run.store_records.file_hash", refuse)
    assert message_of(store.obtain, "teacher", "a", leave_weights) == (
        f"store_dir={tmp_path}: Permission denied ({path / 'weights'})\n"
        "  choose another folder, as in store_dir=/tmp/elsewhere"
    )
    assert (path / "weights").read_text(encoding="utf-8") == "w"


def test_a_damaged_fact_is_found(tmp_path: Path) -> None:
    """meta.json has its own hash: a fact that is changed is no fact any more."""
    path, _ = make_store(tmp_path).obtain("teacher", "a", leave_weights)
    text = (path / "meta.json").read_text(encoding="utf-8")
    (path / "meta.json").write_text(text.replace("a letter", "b letter"), encoding="utf-8")
    assert damage(path) == "meta.json"


def test_only_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("new but hal", encoding="utf-8")
            assert path.read_text(encoding="utf-8") == "old"
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_texts_and_rows_are_written_in_utf8_into_folders_that_they_need(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "Müller →\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Müller →\n".encode()
    rows: list[dict[str, Any]] = [{"epoch": 1, "note": "a\nb"}, {"epoch": 2, "note": None}]
    write_json_lines(tmp_path / "metrics.jsonl", rows)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_a_number_that_is_not_finite_and_keeps_the_old_file(tmp_path: Path, number: float) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"nll": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"nll": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_lines(path, [{"nll": 1.0}, {"nll": number}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"nll": 1.5}
    assert list(tmp_path.iterdir()) == [path]
