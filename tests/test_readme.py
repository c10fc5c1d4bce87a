"""The README's own commands and files: each is taken from the page and tried."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import TINY
from distill_run.commands.preflight import preflight
from distill_run.commands.spaces import read_space
from distill_run.config.overrides import parse
from distill_run.config.presets import expand_presets
from distill_run.config.schema import Settings
from distill_run.config.settings import compose_config
from distill_run.pipeline import run
from distill_run.sweeps.report.pages import write_sweep_report

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""
COMMANDS = re.findall(r"^    distill-run (.*)$", TEXT, flags=re.MULTILINE)
# What stands for something of the reader's, or needs what not every machine has.
PLACEHOLDERS = ("DATE", "FINGERPRINT", "my_weights.pt", "--config-dir", "device=cuda")

pytestmark = pytest.mark.skipif(not TEXT, reason="the tests do not lie in a checkout")


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("arguments", [line for line in COMMANDS if not any(word in line for word in PLACEHOLDERS)])
def test_a_command_of_the_page_is_accepted(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(arguments)
    overrides = [word for word in words if word != "-m"]
    _, has_preset = expand_presets(overrides, None)
    # The values of every preset are checked in test_sweep.py.
    own = [override for override in overrides if not override.startswith("+sweep=")]
    preflight(own, None, multirun="-m" in words or has_preset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", re.findall(r"^    distill-search (.*)$", TEXT, flags=re.MULTILINE))
def test_a_search_of_the_page_is_accepted(arguments: str) -> None:
    spaces = [read_space(override) for override in parse(shlex.split(arguments)[:2])]
    assert [space.ends for space in spaces] == [("1", "20"), ("0", "1")]


def test_the_other_commands_of_the_page_are_installed() -> None:
    names = set(re.findall(r"^    (distill-\w+)", TEXT, flags=re.MULTILINE))
    assert names == {"distill-run", "distill-report", "distill-store", "distill-search"}
    assert all(Path(sys.executable).with_name(name).is_file() for name in names)


def write_components(folder: Path) -> int:
    """Write the page's own files below a folder; how many there are."""
    files = re.findall(r"`(mine/[\w./]+)`[^`]*```\w+\n(.*?)```", TEXT, flags=re.DOTALL)
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return len(files)


def test_the_page_s_own_components_work_together(tmp_path: Path) -> None:
    assert write_components(tmp_path) == 10
    journal = tmp_path / "journal.txt"
    own = ["student=patches", "mode=logit_mse", "dataset=stripes", "augment=noise", "watchers=journal"]
    tiny = [override for override in TINY if not override.startswith(("student", "dataset", "training.student"))]
    own += ["training.student.epochs=3", f"watchers.journal.path={journal}"]
    config = compose_config([*tiny, *own, f"store_dir={tmp_path / 'store'}"], tmp_path / "mine")
    report = run(config, tmp_path / "run")
    assert report.summary["student"]["architecture"] == "patches"
    assert report.summary["mode"]["name"] == "logit_mse"
    assert report.summary["dataset"]["num_classes"] == 2
    assert list(config.dataset.augment) == ["random_resized_crop", "crop", "flip", "cutout", "noise"]
    begun, *stages, ended = journal.read_text().splitlines()
    assert begun == f"{tmp_path / 'run'}, seed 0"
    assert [line.split()[:2] for line in stages] == [
        [stage, "trained:"] for stage in ("teacher", "baseline", "student")
    ]
    assert ended == "  completed"


def test_the_page_s_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First a run and what follows it, then the use of its student; with tiny networks."""
    section = re.search(r"^### Run from Python\n(.*?)^### ", TEXT, flags=re.DOTALL | re.MULTILINE)
    use = re.search(r"^### Use the student\n\n```python\n(.*?)```", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    assert use is not None
    first, figures, own, sweep = re.findall(r"```python\n(.*?)```", section[1], flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distill_run.config.settings.compose_config", compose_tiny)
    write_components(tmp_path)
    names: dict[str, Any] = {}
    exec(first, names)
    assert (tmp_path / "outputs" / "mine" / "report.html").is_file()
    accuracy = names["report"].student.selected.test.accuracy
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{accuracy} ")
    monkeypatch.setattr("distill_run.pipeline.write_pages", lambda _: None)  # they take longer than the trainings
    exec(figures, names)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[0:9:3]] == ["teacher", "baseline", "student"]
    assert str(accuracy) in shown[7]
    assert shown[10] == names["report"].conclusion
    exec(own, names)
    assert type(names["network"].architecture).__name__ == "PatchNet"
    exec(sweep, names)
    report = write_sweep_report([tmp_path / "outputs" / "temperatures"], tmp_path / "sweep")
    found = [(setting.values["mode.temperature"], setting.replicates) for setting in report.settings]
    assert sorted(found) == [(2, 2), (8, 2)]
    exec(use[1].replace("outputs/runs/DATE/TIME", "outputs/mine"), names)
    assert len(names["names"]) == 8
    assert set(names["names"]) <= set("0123456789")


def compose_tiny(overrides: list[str], extra_dir: str | None = None) -> Settings:
    """The settings of the page's overrides, but with tiny networks in place of those that the page names."""
    own = [override for override in overrides if not override.startswith("teacher=")]
    replaced = "student" if any(override.startswith("student=") for override in own) else "none"
    return compose_config([*(word for word in TINY if not word.startswith(replaced)), *own], extra_dir)


def test_the_page_shows_a_picture_of_the_report_and_it_is_there() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (README.parent / picture).is_file()


def test_the_page_has_the_two_commands_on_a_line_each() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("    python3 -m venv ")]
    assert len(lines) == 2
    assert lines[0].endswith("/distill-run")
    assert lines[1].endswith("/pytest")
