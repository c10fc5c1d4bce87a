"""distill-predict: the classes that student and teacher give to photographs, and the page of the student's mistakes."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import distill_run
from conftest import InProcess
from distill_run.commands import installed
from distill_run.deploy.past_run import PastRun
from distill_run.deploy.shipped import open_shipped
from distill_run.engine.evaluate import predict
from distill_run.report.run_report import RunReport
from distill_run.tensor_files import load, save
from helpers import message_of

NUM = 40  # test images that are written as files


class Measured:
    """The test images of the tiny run, and what its networks say of them, without the command's own code."""

    def __init__(self, report: RunReport) -> None:
        past = PastRun.read(report.run_dir)
        self.feed = past.open_feed(torch.device("cpu"))
        networks = {"student": open_shipped(report.run_dir).network, "teacher": past.teacher(self.feed)}
        self.probabilities: dict[str, Tensor] = {
            stage: predict(network, self.feed.test).double().softmax(1) for stage, network in networks.items()
        }
        self.run_dir = str(report.run_dir)
        self.weights = Path(past.settings.store_dir) / "teacher" / report.teacher.fingerprint / "weights.pt"

    def right(self, stage: str) -> Tensor:
        return self.probabilities[stage].argmax(1) == self.feed.test.targets

    def class_of(self, stage: str, index: int) -> str:
        return self.feed.classes[int(self.probabilities[stage][index].argmax())]


@pytest.fixture(scope="module")
def measured(tiny_report: RunReport) -> Measured:
    return Measured(tiny_report)


@pytest.fixture
def digits(measured: Measured, tmp_path: Path) -> Path:
    """Test images as files, digits/<class>/<index>.png."""
    for index in range(NUM):
        folder = tmp_path / "digits" / measured.feed.classes[int(measured.feed.test.targets[index])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(measured.feed.test.image(index)[0].numpy()).save(folder / f"{index:03}.png")
    return tmp_path / "digits"


def test_rows_hold_what_the_networks_say_of_the_test_images(
    measured: Measured, digits: Path, in_process: InProcess
) -> None:
    words = (measured.run_dir, str(digits), "--format", "csv", "--top", "2")
    status, out, err = in_process(installed.predict, "distill-predict", *words)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert list(rows[0]) == [
        *("image", "target", "student", "student_probability", "student_2", "student_2_probability"),
        *("teacher", "teacher_probability", "teacher_2", "teacher_2_probability", "error"),
    ]
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert len(rows) == NUM
    for row in rows:
        index = int(Path(row["image"]).stem)
        assert row["target"] == Path(row["image"]).parent.name
        for stage, probabilities in measured.probabilities.items():
            values, places = probabilities[index].sort(descending=True)
            assert [row[stage], row[f"{stage}_2"]] == [measured.feed.classes[int(place)] for place in places[:2]]
            assert float(row[f"{stage}_probability"]) == pytest.approx(values[0].item(), abs=2e-6)
            assert float(row[f"{stage}_2_probability"]) == pytest.approx(values[1].item(), abs=2e-6)
    student, teacher = (measured.right(stage)[:NUM].double().mean() for stage in ("student", "teacher"))
    assert f"right: the student on {student:.2%} and the teacher on {teacher:.2%} of 40 images\n" in err


def test_a_file_that_cannot_be_read_is_a_row_and_the_rest_goes_on(
    measured: Measured, digits: Path, in_process: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    next(digits.rglob("000.png")).rename(tmp_path / "mine" / "b.png")
    (tmp_path / "mine" / "a.png").write_bytes(b"")
    (tmp_path / "mine" / "read.me").write_text("no image")
    words = ("distill-predict", measured.run_dir, "mine")
    status, out, err = in_process(installed.predict, *words, "--format", "json", "--output", "new/rows.json")
    damaged, row = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert (status, out) == (1, "")
    assert damaged == {"image": "mine/a.png", "error": "it is empty"}
    assert (row["image"], row["student"][0]["class"]) == ("mine/b.png", measured.class_of("student", 0))
    assert err.splitlines()[0] == "mine: 1 file skipped, .me is not read as an image"
    assert err.splitlines()[-1] == "1 file of 2 could not be read"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.json"]
    status, out, err = in_process(installed.predict, *words)
    assert "warning: mine/a.png cannot be read: it is empty\n" in err
    student, teacher = (measured.probabilities[stage][0].max() for stage in ("student", "teacher"))
    names = [measured.class_of(stage, 0) for stage in ("student", "teacher")]
    cells = [names[0], f"{student:.2%}", names[1], f"{teacher:.2%}", "mine/b.png"]
    assert [line.split() for line in out.splitlines()] == [["student", "teacher", "image"], cells]


def test_what_people_may_not_expect_of_an_image_is_told_as_a_run_tells_it(
    measured: Measured, in_process: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for name in "abcdef":
        Image.new("LA", (8, 8), (0, 90)).save(tmp_path / "mine" / f"{name}.png")
    frames = [Image.new("L", (8, 8), brightness) for brightness in (0, 200)]
    frames[0].save(tmp_path / "mine" / "g.gif", save_all=True, append_images=frames[1:])
    status, out, err = in_process(
        installed.predict, "distill-predict", measured.run_dir, "mine", "--output", "rows.csv", "--format", "csv"
    )
    assert (status, out) == (0, "")
    shown = ", ".join(f"mine/{name}.png" for name in "abcde")
    told = [line for line in err.splitlines() if "with" in line]
    assert told == [
        f"6 images with transparent parts, which become white: {shown} ...",
        "1 image with several frames, of which the first is read: mine/g.gif",
    ]
    status, _, err = in_process(installed.predict, "distill-predict", measured.run_dir, "mine/a.png")
    assert (status, err) == (0, "1 image with transparent parts, which become white: mine/a.png\n")


def test_the_page_has_the_test_images_that_only_the_teacher_gets_right(
    measured: Measured, in_process: InProcess, tmp_path: Path
) -> None:
    status, _, _ = in_process(
        installed.predict, "distill-predict", measured.run_dir, "--errors", "--output", "page.html"
    )
    page = (tmp_path / "page.html").read_text()
    wrong = (measured.right("teacher") & ~measured.right("student")).nonzero().flatten()
    confidences = measured.probabilities["student"].max(1).values[wrong]
    expected = wrong[confidences.argsort(descending=True, stable=True)].tolist()
    assert status == 0
    assert expected, "the tiny student makes mistakes that its teacher does not"
    shown = [int(index) for index in re.findall(r'class="where">test image (\d+)<', page)]
    assert shown == expected[:60]
    total = len(measured.feed.test)
    assert f"wrong and the teacher right on {len(expected):,} of {total:,} images" in page
    assert (f"{len(expected) - 60:,} more are not shown" in page) == (len(expected) > 60)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_folder_of_class_folders_gives_the_page_too(measured: Measured, digits: Path, in_process: InProcess) -> None:
    status, out, _ = in_process(
        installed.predict, "distill-predict", measured.run_dir, "digits", "--errors", "--output", "p"
    )
    count = int((measured.right("teacher") & ~measured.right("student"))[:NUM].sum())
    assert status == 0
    assert out.splitlines()[-1].startswith(f"{count} image")


def test_a_teacher_of_another_order_is_compared_by_name(
    measured: Measured, digits: Path, in_process: InProcess, tmp_path: Path
) -> None:
    content = load(measured.weights)
    save(tmp_path / "turned.pt", {**content, "classes": content["classes"][::-1]})
    words = (measured.run_dir, str(digits), "--format", "json", "--teacher", "turned.pt")
    status, out, _ = in_process(installed.predict, "distill-predict", *words)
    assert status == 0
    for row in json.loads(out):
        place = int(measured.probabilities["teacher"][int(Path(row["image"]).stem)].argmax())
        assert row["teacher"][0]["class"] == measured.feed.classes[::-1][place]
    save(tmp_path / "turned.pt", {**content, "classes": ["cat", *content["classes"][1:]]})
    status, _, err = in_process(installed.predict, "distill-predict", *words)
    absent = content["classes"][0]
    assert status == 1
    assert err.startswith(f"error: --teacher turned.pt: no output of the teacher is named {absent}")
    assert err.endswith("\n  give a teacher of the student's classes\n")


def test_a_student_without_a_teacher_stands_alone(
    tiny_report: RunReport, digits: Path, in_process: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "alone.pt").write_bytes((tiny_report.run_dir / "checkpoints" / "student.pt").read_bytes())
    remedy = "name it, as in --teacher outputs/store/teacher/FINGERPRINT/weights.pt"
    image = str(next(digits.rglob("*.png")))
    status, out, err = in_process(installed.predict, "distill-predict", "alone.pt", image)
    assert (status, out.split()[:2]) == (0, ["student", "image"])
    assert err == f"the student alone: alone.pt belongs to no run that names a teacher; {remedy}\n"
    status, _, err = in_process(installed.predict, "distill-predict", "alone.pt", "digits", "--errors")
    assert (status, err) == (1, f"error: alone.pt belongs to no run that names a teacher\n  {remedy}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["RUN"],
            "no image is named\n  name images or folders: distill-predict RUN photos; or add --errors, for those of "
            "the test split",
        ),
        (["RUN", "no.jpg"], "no.jpg does not exist\n  give the file of an image or a folder of images"),
        (["RUN", ".", "--top", "0"], "--top 0 shows no class\n  write 1 or more"),
        (["RUN", "--errors", "--top", "2"], "--errors writes a page, which has no --top\n  leave out --top"),
        (["RUN", ".", "--output", "."], "--output . is a folder\n  give a file, as in ./rows"),
        (["no.pt", "."], "there is no checkpoint no.pt\n  check the path"),
        (
            ["RUN", "empty"],
            "empty holds no image\n  give a folder of images, in any subfolders, or the file of an image",
        ),
        (["RUN", "a.png", "--top", "11"], "--top 11 is more than the 10 classes\n  write a smaller number"),
        (
            ["RUN", "a.png", "--errors"],
            "--errors needs the right classes: a.png is a file\n  give a folder with a folder of images for each "
            "class; or no images, for the test split of the run",
        ),
    ],
)
def test_mistakes_are_told_in_two_lines(
    words: list[str], message: str, measured: Measured, in_process: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").touch()
    given = [measured.run_dir if word == "RUN" else word for word in words]
    status, _, err = in_process(installed.predict, "distill-predict", *given)
    assert (status, err.replace(measured.run_dir, "RUN")) == (1, f"error: {message}\n")


def test_a_closed_pipe_ends_it_quietly(
    measured: Measured, digits: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        status, _, err = in_process(installed.predict, "distill-predict", measured.run_dir, str(digits))
    assert (status, err) == (130, "")


def test_an_image_is_read_as_the_network_was_measured_on_it(measured: Measured, digits: Path, tmp_path: Path) -> None:
    network = open_shipped(Path(measured.run_dir)).network
    path = next(digits.rglob("005.png"))
    expected = measured.feed.test.image(5).unsqueeze(0).float() / 255
    assert torch.equal(distill_run.read_image(path, network), expected)
    (tmp_path / "not.png").write_text("text")
    assert message_of(distill_run.read_image, tmp_path / "not.png", network) == (
        f"{tmp_path}/not.png cannot be read: it is no image of a known format\n  give the file of an image"
    )
    (tmp_path / "not.png").write_bytes(b"P6 100000 100000 255\n")
    assert message_of(distill_run.read_image, tmp_path / "not.png", network) == (
        f"{tmp_path}/not.png cannot be read: Image size (10000000000 pixels) exceeds limit of 178956970 pixels\n"
        "  give the file of an image"
    )


def test_a_page_without_a_readable_image_says_so(measured: Measured, in_process: InProcess, tmp_path: Path) -> None:
    folder = tmp_path / "digits" / measured.feed.classes[0]
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    status, _, _ = in_process(
        installed.predict, "distill-predict", measured.run_dir, "digits", "--errors", "--output", "page.html"
    )
    page = (tmp_path / "page.html").read_text()
    assert status == 1
    assert "1 file could not be read" in page
    assert "There is none." in page
