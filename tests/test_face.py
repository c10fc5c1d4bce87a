"""What a Python user imports: the names that distill_run gives, loaded when they are first used."""

import dataclasses
import json
import subprocess
import sys
from importlib import metadata

import pytest

import distill_run
from distill_run.errors import UserError
from distill_run.losses.logits import soft_target_loss
from distill_run.report.run_report import RunReport
from helpers import Page, message_of


def run_python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_the_import_loads_neither_torch_nor_hydra_and_dir_lists_every_name() -> None:
    program = "import sys, distill_run\nprint(*dir(distill_run), 'torch' in sys.modules, 'hydra' in sys.modules)"
    *names, has_torch, has_hydra = run_python(program).split()
    assert set(distill_run.__all__) <= set(names)
    assert (has_torch, has_hydra) == ("False", "False")


def test_every_name_is_there_and_is_the_one_of_its_module() -> None:
    assert all(hasattr(distill_run, name) for name in distill_run.__all__)
    assert distill_run.UserError is UserError
    assert distill_run.soft_target_loss is soft_target_loss
    assert distill_run.__version__ == metadata.version("distill-run")
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        distill_run.distil  # noqa: B018


def test_a_run_has_its_older_name_too() -> None:
    run_python("import distill_run as dr, distill_run.pipeline\nassert dr.run is dr.distill is dr.pipeline.run")


@pytest.mark.parametrize("name", ["run", "search", "report", "store"])
def test_every_command_tells_the_version_of_this_program(name: str) -> None:
    program = (
        f"import sys\nfrom distill_run.commands.installed import {name}\nsys.argv = ['command', '--version']\n{name}()"
    )
    assert run_python(program) == f"distill-{name} {metadata.version('distill-run')}\n"


def test_python_m_works_like_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "distill_run", "--teacher", "mlp"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: --teacher is not an option of distill-run\n  write teacher=mlp\n"


def test_overrides_that_do_not_fit_are_explained_as_on_the_command_line() -> None:
    assert message_of(distill_run.compose_config, ["mode=soft", "mode.temprature=8", "teacher=cnn_larg"]) == (
        "teacher=cnn_larg is not there\n  did you mean cnn_large?\n"
        "mode.temprature is not a key of the configuration\n  did you mean mode.temperature?"
    )
    assert message_of(distill_run.compose_config, ["seed=-1", "training.view_seed=0"]) == (
        "seed=-1 is not accepted\n  write a whole number from 0 to 2^63 - 1"
    )
    assert message_of(distill_run.compose_config, ["student.hidden.x=1"]).startswith(
        "student.hidden.x is not a key of the configuration\n  did you mean student.hidden"
    )
    assert message_of(distill_run.compose_config, extra_dir="nowhere") == (
        "extra_dir=nowhere is not a folder\n  give the folder of your own files"
    )


def test_a_report_shows_itself_as_a_table(tiny_report: RunReport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_report.run_dir.parent)
    heading, teacher, _, student, conclusion, page = str(tiny_report).splitlines()
    assert heading.split() == ["test", "acc", "top-5", "nll", "ece", "params", "MACs", "size", "trained", "in"]
    assert len(heading) == len(teacher) == len(student)
    assert student.startswith("student mlp")
    assert f"{tiny_report.student.selected.test.accuracy:.2%}" in student
    assert (conclusion, page) == (tiny_report.conclusion, "run/report.html")
    assert repr(tiny_report) == f"<RunReport of {tiny_report.run_dir}: {tiny_report.conclusion}>"


def test_a_notebook_s_table_escapes_names_and_links_to_the_page(
    tiny_report: RunReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_report.run_dir.parent)
    network = dataclasses.replace(tiny_report.student, architecture="<b>net")
    page = Page(dataclasses.replace(tiny_report, student=network)._repr_html_())
    assert page.all("a") == [{"href": "run/report.html"}]
    assert page.all("b") == []
    assert "student <b>net" in page.text
    assert tiny_report.conclusion in page.text


def test_a_report_is_a_plain_dictionary_under_both_names(tiny_report: RunReport) -> None:
    content = json.loads((tiny_report.run_dir / "report.json").read_text())
    assert tiny_report.to_dict() == tiny_report.summary == content


def test_settings_to_resume_are_those_of_the_run(tiny_report: RunReport) -> None:
    settings = distill_run.compose_config([f"resume={tiny_report.run_dir}"])
    assert (settings.resume, settings.names.student) == (str(tiny_report.run_dir), "mlp")
    assert message_of(distill_run.compose_config, ["resume=nowhere"]) == (
        "resume=nowhere is not the directory of a run\n  look into outputs/runs for it"
    )
