"""What the pages do with a run that has ended: each command is done as it stands, where all is that it names."""

import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import TINY
from distill_run.commands import installed
from distill_run.config.settings import compose_config
from distill_run.data.digits import load as load_digits
from distill_run.pipeline import run
from pages import command_names, commands

# A search is long, and --watch does not end: test_search.py and test_watch.py try them.
ELSEWHERE = {"distill-run", "distill-search"}
CALLS = [
    (name, arguments)
    for name in sorted(command_names() - ELSEWHERE)
    for arguments in commands(name)
    if "--watch" not in arguments
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, a sweep, a store, photographs of digits, and a student's files, under the names that the pages use."""
    folder = tmp_path_factory.mktemp("pages")
    outputs = folder / "outputs"
    short = [*TINY, f"store_dir={outputs / 'store'}"]
    report = run(compose_config([*short, "export=[onnx,torch_export]"]), outputs / "runs" / "DATE" / "TIME")
    for number in range(2):
        run(
            compose_config([*short, f"mode.temperature={number + 1}"]),
            outputs / "sweeps" / "DATE" / "TIME" / str(number),
        )
    teachers = outputs / "store" / "teacher"
    shutil.copytree(teachers / report.teacher.fingerprint, teachers / "FINGERPRINT")
    shutil.copy(report.run_dir / "checkpoints" / "student.pt", folder)
    for name in ("student.onnx", "student.pt2"):
        shutil.move(report.run_dir / "exports" / name, folder)
    shutil.rmtree(report.run_dir / "exports")
    test = load_digits(image_size=8).test
    assert test is not None
    for index in range(40):
        for name in ("photos", "new_photos"):
            place = folder / name / str(int(test.targets[index])) / f"{index}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(test.images[index, 0].numpy()).save(place)
    return folder


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_a_command_of_a_page_does_what_it_says(
    name: str, arguments: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    words: list[str] = []
    for word in shlex.split(arguments.split(" > ")[0]):
        words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    command = getattr(installed, name.removeprefix("distill-"))
    monkeypatch.setattr("sys.argv", [name, *words])
    if name == "distill-export":
        shutil.rmtree(workspace / "outputs" / "runs" / "DATE" / "TIME" / "exports", ignore_errors=True)
    with pytest.raises(SystemExit) as caught:
        command()
    said = capsys.readouterr()
    lost = "int8 costs" in said.out + said.err  # a student of two epochs may lose accuracy: that is said, status 1
    assert (caught.value.code, said.err if "error" in said.err else "") == (1 if lost else 0, "")
    if "--output" in words:
        assert Path(words[words.index("--output") + 1]).exists()
