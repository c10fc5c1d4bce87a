"""Files of strangers: none of their code is run unless the user says so."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import InProcess
from distill_run import tensor_files
from distill_run.build import Builder
from distill_run.commands import installed
from distill_run.deploy.shipped import open_shipped
from distill_run.files import RunFiles
from distill_run.models.pretrained import ARGUMENTS
from distill_run.report.run_report import RunReport
from distill_run.sweeps.search import Search
from helpers import message_of

CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from distill_run.models.mlp import MLP as make
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a stranger's code makes, should it run."""
    return tmp_path / "marker"


@pytest.fixture
def strange(tiny_report: RunReport, tmp_path: Path, marker: Path) -> Path:
    """A run whose student is built by code that the run brings."""
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_report.run_dir, run_dir)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "strange_net.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    files = RunFiles(run_dir)
    content = tensor_files.load(files.student)
    content["architecture"]["_target_"] = "strange_net.make"
    tensor_files.save(files.student, content)
    config = yaml.safe_load(files.config.read_text(encoding="utf-8"))
    config["student"]["_target_"], config["code_dir"] = "strange_net.make", str(tmp_path / "code")
    files.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return run_dir


COMMANDS = [
    (installed.measure, ["distill-measure"], ["--format", "json"]),
    (installed.predict, ["distill-predict"], ["--errors"]),
    (installed.export, ["distill-export"], ["--format", "state_dict"]),
]


@pytest.mark.parametrize(("main", "before", "after"), COMMANDS)
def test_a_run_with_code_of_its_own_needs_a_word(
    main: Callable[[], object], before: list[str], after: list[str], strange: Path, marker: Path, in_process: InProcess
) -> None:
    status, _, told = in_process(main, *before, str(strange), *after)
    assert status == 1
    assert told == (
        f"error: {RunFiles(strange).config} names code in {strange.parent / 'code'}, which would be run\n"
        "  if you trust it, add --trust (trusts=True in Python)\n"
    )
    assert not marker.exists()


def test_a_resumed_run_needs_the_folder_on_its_command(strange: Path, marker: Path, in_process: InProcess) -> None:
    status, _, told = in_process(installed.run, "distill-run", f"resume={strange}")
    assert status == 1
    assert told == (
        f"error: {RunFiles(strange).config} names code in {strange.parent / 'code'}, which would be run\n"
        f"  if you trust it, add --config-dir {strange.parent / 'code'}\n"
    )
    assert not marker.exists()


def test_with_the_word_it_is_run(strange: Path, marker: Path) -> None:
    assert open_shipped(strange, trusts=True).network.classes == tuple(map(str, range(10)))
    assert marker.exists()
    marker.unlink()
    assert open_shipped(strange, strange.parent / "code").run is not None  # its own folder, named by the user


def test_packages_that_a_run_trusts_need_a_word(tiny_report: RunReport, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_report.run_dir, run_dir)
    files = RunFiles(run_dir)
    text = files.config.read_text(encoding="utf-8").replace("- torchvision\n", "- torchvision\n- subprocess\n", 1)
    files.config.write_text(text, encoding="utf-8")
    assert message_of(open_shipped, run_dir) == (
        f"{files.config} trusts packages whose code would be run: subprocess\n"
        "  if you trust it, add --trust (trusts=True in Python)"
    )


@pytest.mark.parametrize(
    ("target", "home"), [("distill_run.store.partial", "functools"), ("distill_run.files.contextmanager", "contextlib")]
)
def test_a_trusted_package_does_not_lend_what_it_imports(target: str, home: str) -> None:
    package = target.rpartition(".")[0]
    assert message_of(Builder().build, {"_target_": target}, "student") == (
        f"student._target_={target} is from {home}, which {package} only imports\n"
        "  name what that package defines itself"
    )


def test_a_network_chooses_no_files_for_timm() -> None:
    for name in ("checkpoint_path", "pretrained_cfg", "cache_dir"):
        assert not ARGUMENTS.accepts({"dropout": 0.2, name: "evil.pt"})
    assert ARGUMENTS.accepts({"dropout": 0.2})


def test_a_study_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    assert message_of(Search(tmp_path, 1, 0, {}).open_study) == (
        f"{tmp_path / 'study.db'} cannot be read: (sqlite3.DatabaseError) file is not a database\n"
        "  name another folder, as in --search-dir DIR"
    )
