"""A student in other formats: the same decisions, with the preprocessing inside, all of the files or none."""

import errno
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn

from conftest import TINY, InProcess, write_photos
from distill_run import __version__, rules
from distill_run.build import Builder
from distill_run.checkpoint import load_network
from distill_run.commands import installed
from distill_run.config import export_formats
from distill_run.config.compose import option_names
from distill_run.config.export_formats import EXPORT_FORMATS, check_export
from distill_run.config.settings import compose_config
from distill_run.data.decode import CentreCrop
from distill_run.data.source import ImageShape
from distill_run.deploy import export_files, staging
from distill_run.deploy.checking import compare, photographs_of
from distill_run.deploy.deployable import Deployable
from distill_run.deploy.export import export
from distill_run.deploy.onnx_files import OnnxRunner, to_onnx, trace
from distill_run.deploy.past_run import PastRun
from distill_run.deploy.shipped import open_shipped
from distill_run.files import RunFiles
from distill_run.models.network import Network, build_network
from distill_run.pipeline import run
from distill_run.report.figures import ExportReport
from distill_run.report.run_report import RunReport, read_report
from distill_run.tensor_files import load
from helpers import Page, message_of
from test_simkd import Pooled, reused
from test_zoo import node_of, shuffled

QUICK = ("cnn_tiny",)  # the others take seconds each; the tiny run has an mlp
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in option_names("model")]
OTHERS: dict[str, dict[str, Any]] = {"timm": {"name": "resnet10t"}, "torchvision": {"name": "mobilenet_v3_small"}}


class AsItIs(nn.Module):
    """In the place of a network: gives the images that it receives."""

    def __init__(self, image_size: tuple[int, int], crop_ratio: float) -> None:
        super().__init__()
        self.image_size, self.crop_ratio = image_size, crop_ratio

    def forward(self, images: Tensor) -> Tensor:
        return images


def some_photograph(height: int, width: int, channels: int = 3) -> Image.Image:
    """Smooth patches with noise on them: what a photograph is made of."""
    generator = np.random.default_rng(height * width)
    patches = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(patches.squeeze()).resize((width, height), Image.Resampling.BICUBIC)).astype(
        int
    )
    noisy = smooth + generator.integers(-40, 40, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def as_tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).unsqueeze(0)


@pytest.mark.parametrize(
    ("size", "image_size", "crop_ratio"),
    [
        ((500, 375), (224, 224), 0.875),
        ((375, 500), (224, 224), 0.875),
        ((64, 48), (96, 96), 1.0),
        ((480, 640), (160, 96), 0.95),
        ((20, 30), (8, 8), 0.9),
        ((33, 32), (32, 32), 1.0),
    ],
)
def test_photographs_become_what_pillow_makes_of_them(
    size: tuple[int, int], image_size: tuple[int, int], crop_ratio: float
) -> None:
    image = some_photograph(*size)
    expected = as_tensor(CentreCrop(image_size, crop_ratio).apply(image)).int()
    deployable = Deployable(AsItIs(image_size, crop_ratio), takes_bytes=True)  # type: ignore[arg-type]
    found = (deployable(as_tensor(image)) * 255).round().int()
    differences = (found - expected).abs()
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 0.001


@pytest.mark.parametrize("takes_bytes", [True, False])
def test_an_image_of_the_networks_size_stays_as_it_is(takes_bytes: bool) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    deployable = Deployable(AsItIs((16, 16), 1.0), takes_bytes=takes_bytes)  # type: ignore[arg-type]
    assert torch.equal(deployable(images if takes_bytes else images / 255), images / 255)


def test_the_centre_of_what_is_compared_is_the_image_itself() -> None:
    images = as_tensor(some_photograph(28, 28))
    deployable = Deployable(AsItIs((28, 28), 0.875), takes_bytes=True)  # type: ignore[arg-type]
    photographs = photographs_of(images, 0.875)
    assert photographs.shape[2:] == (32, 32)
    assert torch.equal((deployable(photographs) * 255).round().byte(), images)


def assert_onnx_agrees(network: Network, folder: Path, sizes: Sequence[tuple[int, int, int]]) -> None:
    """For each (number, height, width) of images the ONNX file gives the logits of the network with preprocessing."""
    channels = network.mean.numel()
    deployable = Deployable(network.eval(), takes_bytes=True).eval()
    model = to_onnx(trace(deployable, channels), {})
    (folder / "student.onnx").write_bytes(model.proto.SerializeToString())
    runner = OnnxRunner(folder / "student.onnx")
    for number, height, width in sizes:
        images = torch.cat(
            [as_tensor(some_photograph(height, width + k, channels))[..., :width] for k in range(number)]
        )
        with torch.no_grad():
            wanted = deployable(images)
        torch.testing.assert_close(runner(images), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_can_be_written_as_onnx(name: str, tmp_path: Path) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    channels = 1 if name in ("mlp", "resnet14") else 3
    node = {**node_of(name), **OTHERS.get(name, {})}
    shape = ImageShape(channels, (32, 32), 10)
    network = shuffled(build_network(node, "student", shape, [0.5] * channels, [0.25] * channels, 0, Builder()))
    assert_onnx_agrees(network, tmp_path, [(2, 32, 32), (3, 45, 40)])


def test_a_student_with_the_teachers_classifier_can_be_written_as_onnx(tmp_path: Path) -> None:
    """Its features are read by a hook where its own code pools them."""
    architecture = reused(Pooled(4, 1), Pooled(6, 1))
    assert not architecture.is_cut
    network = Network(architecture, [0.5], [0.25])
    network.image_size = (8, 8)
    assert_onnx_agrees(network, tmp_path, [(2, 8, 8), (1, 13, 9)])


class Undecided(nn.Module):
    """An architecture whose code looks at the values of its images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


def test_a_network_that_cannot_be_traced_is_told() -> None:
    network = Network(Undecided(), [0.5], [0.25])
    network.image_size = (8, 8)
    told = message_of(trace, Deployable(network.eval(), takes_bytes=True), 1).splitlines()
    assert told[0].startswith("the network cannot be traced by torch.export: ")
    assert told[1:] == ["  choose a format that needs no trace: safetensors or state_dict"]


Exports = tuple[Path, int, str]


@pytest.fixture(scope="module")
def exports(tiny_report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The tiny student in every format: the folder, the exit status and what was printed."""
    folder = tmp_path_factory.mktemp("exports")
    formats = [word for each in EXPORT_FORMATS for word in ("--format", each)]
    words = ["distill-export", str(tiny_report.run_dir), *formats, "--int8", "--output", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr("sys.argv", words)
        patch.setattr("sys.stdout.write", told.append)
        with pytest.raises(SystemExit) as caught:
            installed.export()
    return folder / "out", int(caught.value.code or 0), "".join(told)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_an_export_leaves_exactly_these_files(exports: Exports) -> None:
    folder, status, _ = exports
    assert status == 0
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        *("export.json", "student.onnx", "student.pt2", "student_int8.onnx"),
        *("student_hub/README.md", "student_hub/config.json", "student_hub/model.safetensors"),
        *("student_state_dict.json", "student_state_dict.pt"),
    }


def test_the_files_say_what_they_are(exports: Exports, tiny_report: RunReport) -> None:
    folder, _, _ = exports
    student = RunFiles(tiny_report.run_dir).student
    facts = {
        "classes": json.dumps([str(digit) for digit in range(10)]),
        "image_size": "[8, 8]",
        "channels": "1",
        "crop_ratio": "1.0",
        "input": "uint8",
        "source_sha256": hashlib.sha256(student.read_bytes()).hexdigest(),
        "program": f"distill-run {__version__}",
    }
    for name in ("student.onnx", "student_int8.onnx"):
        session = OnnxRunner(folder / name).session
        found = session.get_modelmeta().custom_metadata_map
        assert facts.items() <= found.items()
        assert found["command"].startswith(f"distill-export {tiny_report.run_dir} --format onnx")
        assert [(each.name, each.shape, each.type) for each in session.get_inputs()] == [
            ("images", ["N", 1, "H", "W"], "tensor(uint8)")
        ]
        assert [(each.name, each.shape[1], each.type) for each in session.get_outputs()] == [
            ("logits", 10, "tensor(float)")
        ]
        assert str(Path(export_files.__file__).parent).encode() not in (folder / name).read_bytes()
    about = {"metadata.json": ""}
    program = torch.export.load(folder / "student.pt2", extra_files=about)
    assert json.loads(about["metadata.json"])["source_sha256"] == facts["source_sha256"]
    images = torch.randint(0, 256, (3, 1, 11, 9), dtype=torch.uint8)
    wanted = Deployable(load_network(student), takes_bytes=True)(images)
    torch.testing.assert_close(program.module()(images), wanted)
    for name in ("student_hub/config.json", "student_state_dict.json"):
        content = read_json(folder / name)
        assert content["source_sha256"] == facts["source_sha256"]
        assert content["classes"] == [str(digit) for digit in range(10)]
        assert content["architecture"]["hidden"] == [8]


def test_a_hubs_folder_is_read_back(exports: Exports, tiny_report: RunReport) -> None:
    folder, student = exports[0] / "student_hub", load_network(RunFiles(tiny_report.run_dir).student)
    images = torch.rand(4, 1, 8, 8)
    for network in (load_network(folder), open_shipped(folder).network):
        assert torch.equal(network(images), student(images))
        assert network.classes == student.classes
    weights = load(exports[0] / "student_state_dict.pt")
    assert all(torch.equal(weights[key], value) for key, value in student.architecture.state_dict().items())


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    assert message_of(load_network, tmp_path) == (
        f"{tmp_path} is the folder of no network\n  give a run's folder, its student.pt, or an export to safetensors"
    )


def test_the_figures_of_int8_are_those_that_the_file_gives(exports: Exports, tiny_report: RunReport) -> None:
    folder, _, told = exports
    feed = PastRun.read(tiny_report.run_dir).open_feed(torch.device("cpu"))
    images = torch.stack([feed.test.image(index) for index in range(len(feed.test))])
    logits = {name: OnnxRunner(folder / name)(images) for name in ("student.onnx", "student_int8.onnx")}
    found = {each["format"]: each for each in read_json(folder / "export.json")["exports"]}
    for file_format, name in (("onnx", "student.onnx"), ("onnx_int8", "student_int8.onnx")):
        right = logits[name].argmax(1) == feed.test.targets
        assert found[file_format]["accuracy"] == pytest.approx(right.double().mean().item())
        assert found[file_format]["bytes"] == (folder / name).stat().st_size
        assert found[file_format]["images"] == len(feed.test)
        assert set(found[file_format]["milliseconds"]) == {"1", "64"}
    assert found["onnx"]["accuracy"] == tiny_report.student.selected.test.accuracy
    assert found["onnx"]["decisions_changed"] == 0
    changed = int((logits["student_int8.onnx"].argmax(1) != logits["student.onnx"].argmax(1)).sum())
    assert found["onnx_int8"]["decisions_changed"] == changed
    assert found["onnx_int8"]["largest_difference"] > 100 * found["onnx"]["largest_difference"]
    assert found["onnx_int8"]["change"] == pytest.approx(found["onnx_int8"]["accuracy"] - found["onnx"]["accuracy"])
    low, high = found["onnx_int8"]["change_interval"]
    assert low <= found["onnx_int8"]["change"] <= high
    assert "student_int8.onnx" in told
    assert "[torch.onnx]" not in told


def test_int8_computes_the_network_alone_with_8_bits(exports: Exports) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(exports[0] / "student_int8.onnx").graph.node
    feeds = {node.output[0]: node for node in nodes}
    products = {node.op_type: [feeds[name].op_type for name in node.input if name in feeds] for node in nodes}
    assert products["Gemm"] == ["DequantizeLinear"] * 3
    assert "DequantizeLinear" not in products["MatMul"]  # which resize


def call_export(in_process: InProcess, *words: str) -> tuple[int, str, str]:
    return in_process(installed.export, "distill-export", *words)


def test_what_exists_is_overwritten_by_force_alone(
    in_process: InProcess, tiny_report: RunReport, tmp_path: Path
) -> None:
    words = [str(tiny_report.run_dir), "--format", "safetensors", "--format", "state_dict", "--output", "out"]
    (tmp_path / "out" / "student_hub").mkdir(parents=True)
    (tmp_path / "out" / "student_hub" / "config.json").write_text("mine")
    (tmp_path / "out" / "student_state_dict.json").write_text("mine")
    status, _, told = call_export(in_process, *words)
    remedy = "  add --force, or choose another folder with --output DIR\n"
    assert (status, told) == (
        1,
        f"error: out/student_hub exists already\n{remedy}error: out/student_state_dict.json exists already\n{remedy}",
    )
    assert (tmp_path / "out" / "student_hub" / "config.json").read_text() == "mine"
    assert call_export(in_process, *words, "--force")[0] == 0
    assert load_network(tmp_path / "out" / "student_hub").classes
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("export.json", "student_hub", "student_state_dict.json", "student_state_dict.pt")
    }


def test_a_file_that_differs_is_refused_and_none_is_left(
    in_process: InProcess, tiny_report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_halves(path: Path, weights: dict[str, Tensor]) -> None:
        torch.save({key: value / 2 for key, value in weights.items()}, path)

    monkeypatch.setattr("distill_run.deploy.writers.save", save_halves)
    words = ["--format", "safetensors", "--format", "state_dict", "--output", "out"]
    status, _, told = call_export(in_process, str(tiny_report.run_dir), *words)
    assert status == 1
    assert told.startswith("error: state_dict: the logits differ from the network's by up to ")
    assert told.endswith(
        "images, more than 0.001: nothing is written\n  choose another format; or, if that is little beside the "
        "logits, allow it with --logits-tolerance\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_logit_that_is_no_number_is_refused() -> None:
    report = compare("onnx", torch.zeros(2, 3), torch.full((2, 3), torch.nan))
    assert "the logits differ" in message_of(export_files._check, report, 0.001)


def test_accuracy_that_int8_loses_is_said() -> None:
    report = ExportReport(
        format="onnx_int8", file="student_int8.onnx", bytes=1, images=100, largest_difference=1.0, decisions_changed=3,
        accuracy=0.9, change=-0.03,
    )  # fmt: skip
    assert export_files.accuracy_lost([report], 0.03) is None
    assert export_files.accuracy_lost([report], 0.01) == (
        "int8 costs 3.00 percentage points of test accuracy, more than 1: student_int8.onnx reaches 90.00%; "
        "ship the float file, or train with more images"
    )


def test_a_file_of_no_run_is_compared_on_given_photographs(
    in_process: InProcess, exports: Exports, tmp_path: Path
) -> None:
    hub = str(exports[0] / "student_hub")
    words = [hub, "--format", "state_dict", "--output", "out"]
    assert call_export(in_process, *words)[2] == (
        f"error: {hub} belongs to no run, whose test images the files could be compared on\n"
        "  add --images DIR with some photographs\n"
    )
    assert call_export(in_process, *words, "--images", "absent")[2] == (
        "error: --images absent is not a folder\n  give a folder of photographs\n"
    )
    status, _, _ = call_export(in_process, *words, "--images", str(write_photos(tmp_path / "photos")))
    assert status == 0
    (table,) = read_json(tmp_path / "out" / "export.json")["exports"]
    assert (table["images"], table["largest_difference"], table["accuracy"]) == (36, 0, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--format", "torch_export", "--int8"],
            "--int8 is for the format onnx alone: torch's own int8 files are larger, slower and need torchao\n"
            "  write --format onnx --int8",
        ),
        (["--format", "state_dict", "--int8"], "--int8 is for the format onnx alone\n  write --format onnx --int8"),
        (
            ["--format", "onnx", "--int8", "--images", "photos"],
            "--int8 is measured on the test images of the run, not on --images\n  leave one of them out",
        ),
    ],
)
def test_a_mistake_in_the_options_is_told(in_process: InProcess, words: list[str], told: str) -> None:
    assert call_export(in_process, "run", *words) == (1, "", f"error: {told}\n")


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_formats, "find_spec", lambda name: None if name != "onnx" else name)
    assert message_of(check_export, ["onnx"], key="export=", int8=None) == (
        "export=onnx needs onnxscript, onnxruntime, which are not installed\n  write pip install 'distill-run[export]'"
    )
    check_export(["safetensors"], key="export=", int8=None)


def test_a_full_disk_is_told_in_two_lines(
    in_process: InProcess, tiny_report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("distill_run.deploy.export_files.write", fail)
    status, _, told = call_export(in_process, str(tiny_report.run_dir), "--format", "state_dict", "--output", "out")
    assert (status, told) == (
        1,
        "error: --output=out: No space left on device\n"
        "  make room, as distill-store gc does, or choose another folder, as in --output=/tmp/elsewhere\n",
    )
    assert not (tmp_path / "out").exists()


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    killed, other = tmp_path / f"{staging.PREFIX}killed", tmp_path / f"{staging.PREFIX}runs"
    for folder in (killed, other):
        folder.mkdir()
        (folder / "student.onnx").write_text("half")
    with FileLock(other / staging.LOCK), staging.staging(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([other, folder])
    assert list(tmp_path.iterdir()) == [other]


def export_at_the_end(tiny_report: RunReport, folder: Path, *overrides: str) -> RunReport:
    """A run whose trainings the store has; it exports its student."""
    store = PastRun.read(tiny_report.run_dir).settings.store_dir
    return run(compose_config([*TINY, f"store_dir={store}", *overrides]), folder / "run")


@pytest.mark.pages
def test_a_run_exports_its_student_at_its_end(
    tiny_report: RunReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = export_at_the_end(tiny_report, tmp_path, "export=[safetensors,state_dict]")
    assert report.student.fingerprint == tiny_report.student.fingerprint
    assert [each.file for each in report.exports] == ["student_hub", "student_state_dict.pt"]
    assert f"exports  {report.run_dir / 'exports'}\n" in capsys.readouterr().out
    assert read_report(report.run_dir).exports == report.exports
    hub = RunFiles(report.run_dir).exports / "student_hub"
    assert load_network(hub).classes
    card = RunFiles(report.run_dir).model_card.read_text()
    assert (hub / "README.md").read_text() == card.replace('load_network("student.pt")', 'load_network("student_hub")')
    assert "| Milliseconds for one image, 1 thread |" in RunFiles(tiny_report.run_dir).model_card.read_text()
    page = RunFiles(report.run_dir).report_page.read_text()
    assert "student_state_dict.pt" in Page(page).text
    assert "| student_hub |" in RunFiles(report.run_dir).report_md.read_text()
    assert "The student in other formats" not in RunFiles(tiny_report.run_dir).report_page.read_text()


def test_nothing_that_is_measured_or_written_at_the_end_costs_a_run_its_report(
    tiny_report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeError("CUDA out of memory\nmore lines")

    monkeypatch.setattr("distill_run.deploy.student_export.export_from_feed", fail)
    monkeypatch.setattr("distill_run.stages.inference.measure_speeds", fail)
    report = export_at_the_end(tiny_report, tmp_path, "export=state_dict", "measure_speed=true")
    assert report.warnings[-2:] == (
        "the speed of inference is not measured: CUDA out of memory",
        "the student is not exported: CUDA out of memory",
    )
    assert (report.exports, report.student.speed) == ((), ())


def test_a_second_export_keeps_the_table_of_the_first(tiny_report: RunReport, tmp_path: Path) -> None:
    for file_format in ("state_dict", "safetensors"):
        export(tiny_report.run_dir, file_format, tmp_path)
    rows = read_json(tmp_path / "export.json")["exports"]
    assert [each["file"] for each in rows] == ["student_state_dict.pt", "student_hub"]
    (tmp_path / "export.json").write_text("mine")
    assert message_of(export, tiny_report.run_dir, "safetensors", tmp_path, overwrites=True) == (
        f"{tmp_path / 'export.json'} is no table of exports\n  choose another folder with --output DIR"
    )
    assert (tmp_path / "export.json").read_text() == "mine"


def test_python_s_arguments_are_checked_as_the_command_s(tiny_report: RunReport, tmp_path: Path) -> None:
    assert message_of(export, tiny_report.run_dir, ["onxx"]) == (
        "export=onxx is not accepted\n  write one of onnx, torch_export, safetensors, state_dict"
    )
    assert message_of(export, tiny_report.run_dir, "onnx", int8=True, images=tmp_path) == (
        "--int8 is measured on the test images of the run, not on --images\n  leave one of them out"
    )
    assert message_of(load_network, tiny_report.run_dir) == (
        f"{tiny_report.run_dir} is the folder of no network\n  give {RunFiles(tiny_report.run_dir).student}"
    )
    assert message_of(load_network, Path("student.onnx")) == (
        "student.onnx is an export for other programs\n  give a run's checkpoints/student.pt, or its folder"
    )


def test_an_export_that_fails_is_a_warning(
    tiny_report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_run.deploy.student_export.LOGITS_TOLERANCE", -1)
    report = export_at_the_end(tiny_report, tmp_path, "export=state_dict")
    assert report.exports == ()
    assert report.warnings[-1].startswith("the student is not exported: state_dict: the logits differ")
    assert not RunFiles(report.run_dir).exports.exists()


def test_the_key_takes_the_formats_alone() -> None:
    assert message_of(compose_config, ["export=tflite"]) == (
        "export=tflite is not accepted\n"
        "  write one of onnx, torch_export, safetensors, state_dict, or a list of such, or null"
    )
    assert compose_config(["export=[onnx,state_dict]"]).export_formats == ["onnx", "state_dict"]
    assert rules.FLAG.accepts(compose_config(["export=onnx", "export_int8=true"]).export_int8)
