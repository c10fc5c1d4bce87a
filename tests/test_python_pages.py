"""The pages on Python, on parts of your own and on trackers: every block of code and every command is tried."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY, without_pages
from distill_run.commands.preflight import preflight
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.sweeps.report.pages import write_sweep_report

FOLDER = Path(__file__).resolve().parents[1] / ".readme"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the tests do not lie in a checkout")


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8") if FOLDER.is_dir() else ""


def blocks_of(name: str) -> list[str]:
    """The Python of a page that is not a file of the reader's folder."""
    files = [content for _, content in files_of(name)]
    return [block for block in re.findall(r"```python\n(.*?)```", text_of(name), flags=re.DOTALL) if block not in files]


def files_of(name: str) -> list[tuple[str, str]]:
    """The files that the page writes, with their content."""
    return re.findall(r"`(mine/[\w./]+)`[^`]*```\w+\n(.*?)```", text_of(name), flags=re.DOTALL)


def write_files(name: str, folder: Path) -> Path:
    for path, content in files_of(name):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder / "mine"


@pytest.fixture
def tiny_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pages' settings, with tiny networks in place of those that are the default, in an empty folder."""

    def compose_tiny(overrides: Sequence[str] = (), extra_dir: str | None = None) -> Settings:
        replaced = tuple(override.partition("=")[0] for override in overrides if override.startswith(("stud", "data")))
        tiny = [override for override in TINY if not override.startswith(replaced or ("none",))]
        return compose_config([*tiny, *overrides], extra_dir)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distill_run.config.settings.compose_config", compose_tiny)


@pytest.mark.slow
@pytest.mark.pages
@pytest.mark.usefixtures("tiny_settings")
def test_the_page_on_python_runs_from_top_to_bottom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, figures, use, export, sweep, mistake, losses = blocks_of("python.md")
    names: dict[str, Any] = {}
    exec(first, names)
    report = names["report"]
    assert report.run_dir.parent.parent == Path("outputs/runs")
    assert (tmp_path / report.run_dir / "report.html").is_file()
    capsys.readouterr()
    exec(figures, names)
    shown = capsys.readouterr().out.splitlines()
    accuracy = report.student.selected.test.accuracy
    assert shown[0] == f"{accuracy} {report.change} {report.gap_recovered}"
    assert [line.split()[0] for line in shown[1:10:3]] == ["teacher", "baseline", "student"]
    assert report.conclusion in shown
    assert shown[-1] == str(accuracy)
    exec(use, names)
    assert len(names["names"]) == 8
    assert set(names["names"]) <= set("0123456789")
    capsys.readouterr()
    exec(export, names)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [Path(line[0]).name for line in told] == ["student.onnx", "student_hub"]
    assert [line[3] for line in told] == ["0", "0"]  # decisions that differ
    images = names["images"]
    assert names["torch"].equal(names["again"](images), names["network"](images))
    with without_pages():
        exec(sweep, names)
    answer = write_sweep_report([tmp_path / "outputs" / "temperatures"], tmp_path / "sweep")
    found = [(setting.values["mode.temperature"], setting.replicates) for setting in answer.settings]
    assert sorted(found) == [(2, 2), (8, 2)]
    capsys.readouterr()
    exec(mistake + losses, names)
    assert "did you mean mode.temperature" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_settings")
def test_the_parts_of_the_page_work_together(tmp_path: Path) -> None:
    assert len(files_of("own_components.md")) == 10
    write_files("own_components.md", tmp_path)
    (block,) = blocks_of("own_components.md")
    names: dict[str, Any] = {}
    exec(block, names)
    report = names["report"]
    assert (report.student.architecture, report.mode["name"]) == ("patches", "logit_mse")
    assert report.dataset.num_classes == 2
    assert type(names["network"].architecture).__name__ == "PatchNet"
    begun, *stages, ended = (tmp_path / "journal.txt").read_text().splitlines()
    assert begun == "outputs/patches, seed 0"
    assert [line.split()[0] for line in stages] == ["teacher", "baseline", "student"]
    assert ended == "  completed"


@pytest.mark.usefixtures("tiny_settings")
def test_the_tracker_of_the_page_writes_its_lines(tmp_path: Path) -> None:
    import distill_run as dr

    mine = write_files("trackers.md", tmp_path)
    report = dr.run(dr.compose_config(["tracker=lines"], str(mine)))
    lines = [line.split() for line in (tmp_path / "lines.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[stage, n] for stage in ("teacher", "baseline", "student") for n in "12"]
    assert lines[-1][2] == f"{report.student.last.val.accuracy:.4f}"


COMMANDS = re.findall(r"^    distill-run (.*)$", text_of("trackers.md"), flags=re.MULTILINE)


@pytest.mark.parametrize("arguments", [command for command in COMMANDS if "--config-dir" not in command])
def test_a_command_of_the_page_on_trackers_is_accepted(arguments: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(arguments)
    preflight([word for word in words if word != "-m"], None, multirun="-m" in words)
    assert list(tmp_path.iterdir()) == []
