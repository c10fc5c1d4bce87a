"""The store: fingerprints that mean the inputs, entries that are whole or absent."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_run.store import (
    Store,
    atomic_path,
    canonical,
    file_hash,
    fingerprint,
    write_json,
    write_json_lines,
    write_text,
)
from helpers import examples

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
    """From: printf '{"format": 1, "inputs": {"a": [1, 0.5, null], "b": {"c": "x", "d": true}}}' | sha256sum."""
    expected = "2e1dca797403e363d3cf60712ad2b8cb0c9b3588c5b392821adeed4f34204fa1"
    assert fingerprint({"b": {"d": True, "c": "x"}, "a": (1.0, 0.5, None)}) == expected


@examples
@given(inputs=inputs_strategy)
def test_the_same_inputs_written_in_another_way_have_the_same_fingerprint(inputs: dict[str, Any]) -> None:
    assert fingerprint(reordered(inputs)) == fingerprint(inputs)


@examples
@given(first=inputs_strategy, second=inputs_strategy)
def test_inputs_that_differ_have_fingerprints_that_differ(first: dict[str, Any], second: dict[str, Any]) -> None:
    is_same = json.dumps(canonical(first), sort_keys=True) == json.dumps(canonical(second), sort_keys=True)
    assert (fingerprint(first) == fingerprint(second)) is is_same


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": 0.1, "widths": [8, 16], "norm": 1, "name": "4"},  # 1 is not true
        {"lr": 0.1, "widths": [8, 16], "norm": True, "name": 4},  # 4 is not "4"
        {"lr": 0.1, "widths": [16, 8], "norm": True, "name": "4"},
        {"lr": 0.1, "widths": [8, 16, []], "norm": True, "name": "4"},
        {"lr": 0.1, "widths": "[8, 16]", "norm": True, "name": "4"},
        {"lr": 0.1000000001, "widths": [8, 16], "norm": True, "name": "4"},
        {"lr": 0.1, "widths": [8, 16], "norm": None, "name": "4"},
        {"lr": 0.1, "widths": [8, 16], "norm": True, "name": "4", "new": None},
        {"lr": 0.1, "widths": [8, 16], "norm": True},
    ],
)
def test_every_change_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    assert fingerprint(changed) != fingerprint({"lr": 0.1, "widths": [8, 16], "norm": True, "name": "4"})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_has_no_fingerprint(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"lr": [number]})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def leave_empty(folder: Path) -> None:
    """Make an entry without a file."""


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "weights").write_text("w", encoding="utf-8")

    first, was_there = store.obtain("teacher", "f" * 64, make)
    again, was_there_again = store.obtain("teacher", "f" * 64, make)
    assert (was_there, was_there_again) == (False, True)
    assert first == again == tmp_path / "store" / "teacher" / ("f" * 64)
    assert len(made) == 1
    assert [path.name for path in first.iterdir()] == ["weights"]
    assert list(first.parent.iterdir()) == [first]


def test_kinds_are_kept_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.obtain("teacher", "a", leave_empty)
    assert store.obtain("baseline", "a", leave_empty) == (tmp_path / "baseline" / "a", False)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_entry_whose_making_fails_is_not_there(tmp_path: Path, error: type[BaseException]) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half", encoding="utf-8")
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        store.obtain("teacher", "a", fail)
    assert list(tmp_path.iterdir()) == []
    assert store.obtain("teacher", "a", leave_empty)[1] is False


def test_an_entry_that_another_process_published_first_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make_while_another_is_faster(folder: Path) -> None:
        (folder / "who").write_text("me", encoding="utf-8")
        theirs = store.path("teacher", "a")
        theirs.mkdir()
        (theirs / "who").write_text("the other", encoding="utf-8")

    path, _ = store.obtain("teacher", "a", make_while_another_is_faster)
    assert (path / "who").read_text(encoding="utf-8") == "the other"
    assert list(path.parent.iterdir()) == [path]


def test_of_many_that_make_the_same_entry_at_once_one_publishes(tmp_path: Path) -> None:
    store, together = Store(tmp_path), threading.Barrier(8)

    def make(folder: Path) -> None:
        together.wait(timeout=30)
        for name in ("first", "second"):
            (folder / name).write_text(folder.name, encoding="utf-8")

    with ThreadPoolExecutor(8) as pool:
        paths = {path for path, _ in pool.map(lambda _: store.obtain("teacher", "a", make), range(8))}
    (path,) = paths
    assert (path / "first").read_text(encoding="utf-8") == (path / "second").read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_an_entry_can_be_read_by_those_who_may_read_its_neighbours(tmp_path: Path) -> None:
    """A store is shared: an entry gets the rights of any other folder, not those of a temporary one."""
    (tmp_path / "teacher").mkdir()
    path, _ = Store(tmp_path).obtain("teacher", "a", leave_empty)
    assert oct(path.stat().st_mode) == oct(path.parent.stat().st_mode)


def test_an_entry_that_cannot_be_published_is_an_error(tmp_path: Path) -> None:
    def make_while_a_file_stands_in_the_way(folder: Path) -> None:
        (tmp_path / "teacher" / "a").write_text("no folder", encoding="utf-8")

    with pytest.raises(OSError, match="a"):
        Store(tmp_path).obtain("teacher", "a", make_while_a_file_stands_in_the_way)
    assert [path.name for path in (tmp_path / "teacher").iterdir()] == ["a"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
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
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_is_written_in_utf8_into_folders_that_it_needs(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "Müller →\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Müller →\n".encode()


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


def test_json_lines_hold_one_object_a_line(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"epoch": 1, "note": "a\nb"}, {"epoch": 2, "note": None}]
    write_json_lines(tmp_path / "metrics.jsonl", rows)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
