"""distill-measure: networks of every form side by side, as a table, JSON or csv."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import InProcess
from distill_run.commands import installed, measure
from distill_run.deploy import measured
from distill_run.engine.timing import Inference
from distill_run.files import RunFiles
from distill_run.report.run_report import RunReport

METADATA = {"image_size": "[2, 2]", "channels": "3", "classes": '["a", "b"]', "input": "uint8"}


class Exported(nn.Module):
    """As an exporter writes it: preprocessing inside; 131 numbers, 120 multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images.float() / 255)
        return logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx and net.pt2."""
    folder = tmp_path_factory.mktemp("exported")
    network, images = Exported().eval(), torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    shapes = {"images": {0: torch.export.Dim("N")}}
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    torch.export.save(program, folder / "net.pt2", extra_files={"metadata.json": json.dumps(METADATA)})
    onnx = torch.onnx.export(program, (), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False)
    assert onnx is not None
    onnx.model.metadata_props.update(METADATA)
    onnx.save(str(folder / "net.onnx"))
    return folder


def rows_of(out: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_every_form_is_measured_alike(tiny_report: RunReport, exported: Path, in_process: InProcess) -> None:
    student = RunFiles(tiny_report.run_dir).student
    places = [str(path) for path in (student, exported / "net.onnx", exported / "net.pt2")]
    status, out, err = in_process(
        installed.measure, "distill-measure", *places, places[0], "--trust", "--format", "json"
    )
    assert (status, err) == (0, "")
    rows = rows_of(out)
    assert [row["file"] for row in rows] == places
    assert [row["form"] for row in rows] == ["torch", "onnx", "torch export"]
    assert [row["parameters"] for row in rows] == [tiny_report.student.params, 131, 131]
    assert [row["macs"] for row in rows] == [tiny_report.student.macs, None, 120]
    assert [row["bytes"] for row in rows] == [Path(place).stat().st_size for place in places]
    for row in rows:
        assert [(each["threads"], each["batch_size"]) for each in row["speed"]] == [(1, 1), (1, 64)]
    assert [row["speed"][0]["memory_bytes"] is None for row in rows] == [False, True, False]


def test_all_networks_of_a_run(tiny_report: RunReport, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = Inference("cpu", 1, 1, 10, 0.001, 0.002, 0.004, 2000)
    monkeypatch.setattr(measured, "measure_speeds", lambda subjects, _: [(made_up,)] * len(subjects))
    run_dir = str(tiny_report.run_dir)
    status, out, _ = in_process(installed.measure, "distill-measure", run_dir, "--all", "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["stage"] for row in rows] == ["teacher", "baseline", "student"]
    assert [int(row["parameters"]) for row in rows] == [network.params for _, network in tiny_report.networks]
    assert [int(row["macs"]) for row in rows] == [network.macs for _, network in tiny_report.networks]
    assert {row["median"] for row in rows} == {"0.002"}
    status, out, _ = in_process(installed.measure, "distill-measure", run_dir, "--all")
    assert status == 0
    [heading, *lines] = [line for line in out.splitlines() if line.strip()][:4]
    assert heading.split()[:4] == ["form", "parameters", "MACs", "size"]
    name = tiny_report.run_dir.name
    assert [line.split()[:3] for line in lines] == [
        [name, stage, "torch"] for stage in ("teacher", "baseline", "student")
    ]
    assert "1 to 4" in lines[0]


def test_the_names_tell_the_files_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(file: str, stage: str = "") -> measured.Measured:
        return measured.Measured(file, stage, "torch", 1, None, 1, ())

    monkeypatch.chdir(tmp_path)
    files = [found("runs/1/student.pt"), found("runs/2/student.pt"), found("runs/2", "teacher"), found("runs/net.onnx")]
    assert measure.short_names(files) == ["1/student.pt", "2/student.pt", "2 teacher", "net.onnx"]
    assert measure.short_names([found("runs/1/student.pt")]) == ["student.pt"]


def test_the_threads_are_those_that_were_asked_for(
    exported: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    place = str(exported / "net.pt2")
    assert (
        in_process(installed.measure, "distill-measure", place, "--trust", "--threads", "3", "--format", "json")[0] == 0
    )
    assert asked[0] == 3


def test_mistakes_are_told_together_before_torch_is_loaded(in_process: InProcess) -> None:
    status, out, err = in_process(installed.measure, "distill-measure", "none.pt", "no_run")
    assert (status, out) == (1, "")
    remedy = "  give a run's directory, a student.pt, the store's weights.pt, or an exported .onnx or .pt2\n"
    assert err == f"error: none.pt does not exist\n{remedy}error: no_run does not exist\n{remedy}"


def test_the_threads_are_a_whole_number(exported: Path, in_process: InProcess) -> None:
    _, _, err = in_process(installed.measure, "distill-measure", str(exported / "net.pt2"), "--threads", "0")
    assert err == "error: --threads=0 is not accepted\n  write a whole number of at least 1\n"


def test_files_that_cannot_be_measured_are_told(exported: Path, in_process: InProcess, tmp_path: Path) -> None:
    for name in ("bad.onnx", "bad.pt2"):
        (tmp_path / name).write_text("no network")
    program = torch.export.load(exported / "net.pt2")
    torch.export.save(program, tmp_path / "bare.pt2")
    places = ("bad.onnx", "bad.pt2", "bare.pt2")
    status, _, err = in_process(installed.measure, "distill-measure", *places, "--trust", "--format", "json")
    assert status == 1
    first, remedy, second, _, *third = err.splitlines()
    assert first.startswith("error: bad.onnx is no ONNX file that can be run: ")
    assert second.startswith("error: bad.pt2 is no exported program: ")
    assert remedy == "  give a file that distill-export wrote"
    assert third == ["error: the metadata of bare.pt2 do not say which images it takes", remedy]


def test_a_file_that_can_run_code_needs_a_word_and_the_others_are_measured(
    tiny_report: RunReport, exported: Path, in_process: InProcess
) -> None:
    student, program = str(RunFiles(tiny_report.run_dir).student), str(exported / "net.pt2")
    status, out, err = in_process(installed.measure, "distill-measure", student, program, "--format", "json")
    assert status == 1
    assert [row["file"] for row in rows_of(out)] == [student]
    assert err == (
        f"error: {program} is a file of torch.export, which can run code when it is opened\n"
        "  if it comes from you or from someone you trust, add --trust\n"
    )


def test_what_an_onnx_file_needs_is_told(
    exported: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    place = exported / "net.onnx"
    status, _, err = in_process(installed.measure, "distill-measure", str(place), "--format", "json")
    assert status == 1
    assert err == f"error: {place} needs onnx and onnxruntime\n  write pip install 'distill-run[export]'\n"
