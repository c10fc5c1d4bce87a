"""Hostile and damaged content at every boundary: nothing but two lines comes of it, and no code is run.

The long form draws so many cases of each property as DISTILL_RUN_CASES says, by default 3,000.
"""

import copy
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_run import tensor_files
from distill_run.build import Builder
from distill_run.checkpoint import rebuild
from distill_run.commands.inventory import list_entries, records
from distill_run.config.compose import compose, plain_config
from distill_run.config.resume import saved_settings
from distill_run.config.schema import read_settings
from distill_run.config.settings import compose_config
from distill_run.errors import UserError
from distill_run.files import RunFiles
from distill_run.record.status import read_status
from distill_run.report.run_report import RunReport, read_report
from distill_run.stages.resume_point import read_resume_point
from distill_run.stages.watcher import Watcher
from distill_run.store_records import damage, damaged_parts

SHORT = settings(deadline=None, max_examples=15, derandomize=True, database=None)
LONG = settings(
    deadline=None,
    max_examples=int(os.environ.get("DISTILL_RUN_CASES", "3000")),
    database=None,
    suppress_health_check=list(HealthCheck),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 10**400])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "???", "${seed}", "${oc.env:HOME}", "../../x", "\x1b[31m", "nan", "\udce9", "os.system"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
moves = st.lists(st.tuples(st.integers(0, 10**6), values, st.booleans()), min_size=1, max_size=3)


def changed(document: Any, several: list[tuple[int, Any, bool]]) -> Any:
    """The document with some values, at any depth, replaced or removed."""
    document = copy.deepcopy(document)
    for place, value, is_removed in several:
        slots = list(slots_of(document))
        if slots:
            holder, key = slots[place % len(slots)]
            if is_removed:
                del holder[key]
            else:
                holder[key] = value
    return document


def slots_of(node: Any) -> Any:
    """Every place of a document that holds a value: its holder, and its key or index."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from slots_of(value)


def only_two_lines(act: Callable[[], object]) -> None:
    """Fail unless the action succeeds, or raises UserError."""
    with suppress(UserError):
        act()


def only_value_error(act: Callable[[], object]) -> None:
    """The same for what reads a file for its callers, who have the two lines."""
    with suppress(ValueError):
        act()


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def check_configuration(several: list[tuple[int, Any, bool]]) -> None:
    only_two_lines(lambda: read_settings(changed(PLAIN, several)))


def check_override(key: str, value: str) -> None:
    only_two_lines(lambda: compose_config([f"{key}={value}"]))


COMPOSED = compose()
PLAIN: Any = plain_config(COMPOSED.config)
KEYS = sorted(set(PLAIN) | {f"training.student.{key}" for key in PLAIN["training"]["student"]})


def check_saved(folder: Path, several: list[tuple[int, Any, bool]], cut: int) -> None:
    text = yaml.dump(changed(PLAIN, several), sort_keys=False)
    path = folder / "config.yaml"
    path.write_bytes(text.encode(errors="surrogatepass")[: len(text) - cut % 50])
    with pytest.MonkeyPatch.context() as patch:  # composing takes a second
        patch.setattr("distill_run.config.resume.compose", lambda: copy.deepcopy(COMPOSED))
        only_two_lines(lambda: saved_settings(path))


def check_report(folder: Path, report: RunReport, several: list[tuple[int, Any, bool]], cut: int) -> None:
    content = as_json(changed(report.to_dict(), several))
    RunFiles(folder).report.write_bytes(content[: len(content) - cut % 3])
    only_value_error(lambda: read_report(folder))


def check_status(folder: Path, content: Any, raw: bytes | None) -> None:
    RunFiles(folder).status.write_bytes(as_json(content) if raw is None else raw)
    only_value_error(lambda: read_status(folder))


def check_meta(entry: Path, several: list[tuple[int, Any, bool]], cut: int) -> None:
    """Whatever stands in meta.json: an entry is damaged or sound, and the list of the store shows it."""
    path = entry / "meta.json"
    before = path.read_bytes()
    content = as_json(changed(json.loads(before), several))
    path.write_bytes(content[: len(content) - cut % 3])
    if content != as_json(json.loads(before)):
        assert damage(entry) is not None or damaged_parts(entry) == []
    list_entries(entry.parents[1])
    path.write_bytes(before)


def check_uses(store: Path, content: Any) -> None:
    (store / ".runs" / "x.json").write_bytes(as_json(content))
    only_two_lines(lambda: records(store))


def check_network(content: dict[str, Any], several: list[tuple[int, Any, bool]]) -> None:
    about = {key: value for key, value in content.items() if key not in ("weights", "format")}
    if isinstance(about := changed(about, several), dict) and about.keys() >= content.keys() - {"weights", "format"}:
        only_two_lines(lambda: rebuild({**about, "weights": content["weights"], "format": 1}, Builder()))


def check_checkpoint(path: Path, content: bytes, places: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(content)
    for place, value in places:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged[: len(damaged) - cut % len(damaged)])
    only_two_lines(lambda: read_resume_point(path, Watcher()))


def check_all(tiny: RunReport, folder: Path, form: settings) -> None:
    """Every property in one form."""
    files = RunFiles(tiny.run_dir)
    store = tiny.run_dir.parent / "store"
    entry = next((store / "teacher").iterdir())
    small = folder / "x.pt"
    tensor_files.save(small, {"stage": "student", "fingerprint": "f", "program": "p", "trainer": {"a": torch.ones(9)}})
    last, network = small.read_bytes(), tensor_files.load(files.student)
    cuts = st.integers(0, 10**6) | st.just(0)
    places = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
    form(given(moves)(check_configuration))()
    form(given(moves, cuts)(lambda several, cut: check_saved(folder, several, cut)))()
    form(given(moves, cuts)(lambda several, cut: check_report(folder, tiny, several, cut)))()
    form(given(values, st.none() | st.binary(max_size=40))(lambda content, raw: check_status(folder, content, raw)))()
    form(given(moves, cuts)(lambda several, cut: check_meta(entry, several, cut)))()
    form(given(moves)(lambda several: check_network(network, several)))()
    form(given(places, cuts)(lambda several, cut: check_checkpoint(small, last, several, cut)))()
    (folder / ".runs").mkdir()
    form(given(values)(lambda content: check_uses(folder, content)))()


def test_a_saved_configuration_whose_packages_are_no_list(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "trusted_packages": 5}), encoding="utf-8")
    with pytest.raises(UserError, match="trusted_packages=5 is not accepted"):
        saved_settings(path)


def test_a_few_cases_of_each(tiny_report: RunReport, tmp_path: Path) -> None:
    check_all(tiny_report, tmp_path, SHORT)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_thousands_of_cases_of_each(tiny_report: RunReport, tmp_path: Path) -> None:
    check_all(tiny_report, tmp_path, LONG)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@settings(LONG, max_examples=LONG.max_examples // 10)
@given(key=st.sampled_from(KEYS) | st.text(max_size=12), value=st.text(max_size=12) | leaves.map(str))
def test_hundreds_of_overrides(key: str, value: str) -> None:
    check_override(key, value)
