"""The installed command: its help, its errors, its exit status, and that a mistake leaves nothing behind."""

import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from conftest import TINY, Command, InProcess
from distill_run.commands import installed
from distill_run.commands.arguments import arguments_for_hydra
from distill_run.commands.help import GROUPS, KEYS, help_page
from distill_run.config.compose import compose, option_names
from distill_run.console.console import Console
from distill_run.errors import Interrupted, UserError
from distill_run.report.run_report import RunReport

MISTAKES = {
    "teacher=cnn_larg": "teacher=cnn_larg is not there\n  did you mean cnn_large?",
    "training/student/schedule=cosin": (
        "training/student/schedule=cosin is not there\n  write one of constant, cosine, one_cycle, plateau, step"
    ),
    "optimizer=adam": (
        "optimizer=adam does not say whose\n  write training/teacher/optimizer=adam or training/student/optimizer=adam"
    ),
    "mode.alfa=0.5": "mode.alfa is not a key of the configuration\n  did you mean mode.alpha",
    "+training.student.epoch=3": (
        "training.student.epoch is not a key of the configuration\n  did you mean training.student.epochs"
    ),
    "+seed=3": "+seed=3: seed exists already\n  write seed=3",
    "mode.temperature=0": "mode.temperature=0 is not accepted\n  write a number above 0",
    "mode.temperature=nan": "mode.temperature=nan is not accepted\n  write a number above 0",
    "mode.divergence=sideways": (
        "mode.divergence=sideways is not accepted\n  write one of forward, reverse, jensen_shannon"
    ),
    "mode.temperature=1,2": "mode.temperature=1,2 has several values\n  write distill-run -m mode.temperature=1,2",
    "dataset.root=a,b": (
        "dataset.root=a,b has several values\n"
        "  write distill-run -m dataset.root=a,b, or dataset.root='\"a,b\"' for one path"
    ),
    "training.student.batch_size=1": (
        "training.student.batch_size=1 is not accepted\n  write a whole number of at least 2"
    ),
    "resume=nowhere": "resume=nowhere is not the directory of a run\n  look into outputs/runs for it",
    "teacher_checkpoint=nowhere.pt": "there is no checkpoint nowhere.pt\n  check the path",
    "dataset.val=val.csv": (
        "dataset.val=val.csv is not used by dataset=digits\n"
        "  write dataset=image_list dataset.val=val.csv, or leave dataset.val out"
    ),
    "dataset=image_list": "dataset.root is not set\n  write dataset.root=DIR dataset.train=FILE, where FILE has path",
    "dataset=image_folder": "dataset.root is not set\n  write dataset.root=DIR, where DIR holds a folder of images for",
    "seed": "seed has no =\n  write key=value; distill-run --help lists the keys",
    "help": "help has no =\n  write distill-run --help",
    "--teacher": "--teacher is not an option of distill-run\n  write teacher=VALUE",
    "--teacher=mlp": "--teacher=mlp is not an option of distill-run\n  write teacher=mlp",
    "--temperature=4": "--temperature=4 is not an option of distill-run\n  write mode.temperature=4",
    "--batch-size=16": (
        "--batch-size=16 is not an option of distill-run\n"
        "  write training.teacher.batch_size=16 or training.student.batch_size=16"
    ),
    "--optimizer=adam": (
        "--optimizer=adam is not an option of distill-run\n"
        "  write training/teacher/optimizer=adam or training/student/optimizer=adam"
    ),
    "temperature=4": "temperature is not a key of the configuration\n  write mode.temperature=4",
    "epochs=5": (
        "epochs is not a key of the configuration\n  write training.teacher.epochs=5 or training.student.epochs=5"
    ),
    "student.lr=0.1": ("student.lr is not a key of the configuration\n  write training.student.optimizer.lr=0.1"),
    "student.depth=3": (
        "student=mlp_wide has no depth\n  leave student.depth=3 out, or write student=wrn_16_1 or student=wrn_16_2"
        " or student=wrn_40_1 or student=wrn_40_2"
    ),
    "--config-name=mine": (
        "distill-run has a configuration of its own: --config-path and --config-name cannot change it\n"
        "  put your files into groups below a folder, and write --config-dir DIR"
    ),
    "--cfg=nothing": "argument -c/--cfg: invalid choice: 'nothing' (choose from ",
    "--config-dir=nowhere": "--config-dir nowhere is not a folder\n  give the folder of your own files",
    "student._target_=os.system": (
        "student._target_=os.system is outside the trusted packages (distill_run, torch.optim, torchvision, timm)\n"
        "  if you trust it, add 'trusted_packages=[distill_run,torch.optim,torchvision,timm,os]'"
    ),
    "dataset.val_fraction=1": "dataset.val_fraction=1 is not accepted\n  write a number between 0 and 1",
    "dataset.mean=[0.5,0.5]": (
        "dataset.mean has 2 numbers, the images have 1 channels\n"
        "  write one number for each channel, or dataset.mean=null to measure them"
    ),
}


Call = Callable[..., tuple[int, str, str]]


class ClosedPipe(io.StringIO):
    """What stdout is after `| head` has ended."""

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.fixture
def call(in_process: InProcess) -> Call:
    """Runs distill-run."""
    return partial(in_process, installed.run, "distill-run")


def test_a_link_that_leads_nowhere_is_told(in_process: InProcess, tmp_path: Path) -> None:
    """As outputs is, on a disk that is not mounted."""
    (tmp_path / "outputs").symlink_to("unmounted/outputs")
    status, _, told = in_process(installed.run, "distill-run", "store_dir=outputs/store", "hydra.run.dir=outputs/run")
    link = f"{tmp_path / 'outputs'} is a link to unmounted/outputs, which does not exist"
    assert (status, told) == (
        1,
        f"error: hydra.run.dir=outputs/run: {link}\n"
        "  mount that disk or mend the link, or choose another folder, as in hydra.run.dir=/tmp/outputs\n",
    )


# Each composition takes a third of a second: mistakes that are told at once are made at once.
TOGETHER = [
    ["teacher=cnn_larg", "training/student/schedule=cosin", "mode.alfa=0.5", "+training.student.epoch=3", "+seed=3"],
    ["mode.temperature=0", "training.student.batch_size=1", "dataset.val_fraction=1"],
    ["optimizer=adam", "temperature=4", "epochs=5", "student.lr=0.1", "student.depth=3"],
    ["--teacher=mlp", "--temperature=4", "--batch-size=16", "--optimizer=adam"],
]


def test_a_mistake_is_told_in_two_lines_and_leaves_nothing_behind(tmp_path: Path, call: Call) -> None:
    alone = [[mistake] for mistake in MISTAKES if not any(mistake in group for group in TOGETHER)]
    for mistakes in (*TOGETHER, *alone):
        status, out, err = call(*mistakes)
        assert status == 1, out
        told = err.removeprefix("error: ").split("\nerror: ")
        for mistake in mistakes:
            assert [text for text in told if text.startswith(MISTAKES[mistake])], (mistake, err)
        assert len(err.splitlines()) == 2 * len(mistakes)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(tmp_path: Path, call: Call) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    status, _, err = call("device=cuda")
    assert (status, err) == (1, "error: device=cuda is not there\n  write device=auto; torch finds cpu\n")


def test_a_key_and_a_value_that_are_two_words_are_joined(call: Call) -> None:
    for words, told in {
        ("mode", "soft"): ["mode soft has no =\n  write mode=soft"],
        ("mode=crd", "temperature", "4", "experiment", "founding_cifar10"): [
            "temperature 4 has no =\n  write mode.temperature=4",
            "experiment founding_cifar10 has no =\n  write experiment=founding_cifar10",
        ],
        ("--temperature", "4", "--teacher", "mlp"): [
            "--temperature is not an option of distill-run\n  write mode.temperature=4",
            "--teacher is not an option of distill-run\n  write teacher=mlp",
        ],
    }.items():
        assert call(*words) == (1, "", "".join(f"error: {each}\n" for each in told))


def test_a_key_that_the_chosen_option_lacks_is_told_with_the_options_that_have_it(call: Call) -> None:
    others = "mode=crd or mode=dist or mode=dkd or mode=soft or mode=virtual_teacher"
    for key in ("mode.temperature", "temperature"):
        told = f"error: mode=hard has no temperature\n  leave {key}=3 out, or write {others}\n"
        assert call("mode=hard", f"{key}=3") == (1, "", told)
    told = (
        "error: training/student/optimizer=adamw has no momentum\n  leave training.student.optimizer.momentum=0.5 out, "
        "or write training/student/optimizer=nesterov or training/student/optimizer=sgd\n"
    )
    assert call("training/student/optimizer=adamw", "training.student.optimizer.momentum=0.5") == (1, "", told)


def test_a_launcher_that_is_not_installed_names_its_package_and_nothing_else(call: Call) -> None:
    told = (
        "error: hydra/launcher=rq needs hydra-rq-launcher, which is not installed\n"
        "  write pip install hydra-rq-launcher\n"
    )
    assert call("-m", "seed=0,1", "hydra/launcher=rq", "hydra.launcher.n_jobs=2") == (1, "", told)


def test_own_options_stand_beside_the_others_in_errors_and_in_the_help(tmp_path: Path, call: Call) -> None:
    for name in ("mode/gentle", "dataset/photos", "experiment/mine/first", "model/patches", "watcher/journal"):
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("temperature: 1\n")
    words = ("--config-dir", "own", "mode=gentel", "dataset=foto", "experiment=mine/frist", "student=patchs")
    assert call(*words)[2].splitlines()[1::2] == [
        "  did you mean gentle?",
        "  write one of cifar10, cifar100, digits, fashion_mnist, hugging_face, image_folder, image_list, imagenet, "
        "mnist, photos, svhn, tar_shards",
        "  did you mean mine/first?",
        "  did you mean patches?",
    ]
    told = call("--config-dir", "own", "mode=hard", "mode.temperature=3")[2]
    assert " or mode=dkd or mode=gentle or mode=soft or " in told
    page = call("--config-dir", "own", "--help")[1].split()
    assert {"gentle", "photos", "mine/first", "patches", "journal"} <= set(page)
    assert not {"gentle", "photos"} & set(call("--help")[1].split())


OWN_MISTAKES = {  # of experiment/own.yaml, with what is told after its name
    "defaults:\n  - /mode: dkd": (
        "experiment=own has a mistake in its file: Multiple values for mode. To override a value use 'override mode: "
        "dkd'\n  mend {file}"
    ),
    "defaults:\n  - override /mode: nothere": (
        "experiment=own has a mistake in its file: In 'config': Could not find 'mode/nothere' Available options in "
        "'mode': attention "
    ),
    "mode: {temperature: 2": "experiment=own has a mistake in its file: while parsing a flow mapping in ",
    "epochs: 3": "epochs is not a key of the configuration (in {file})\n  distill-run --help lists the keys",
    "training: {student: {epoch: 3}}": "training.student.epoch is not a key of the configuration (in {file})\n  did",
    "mode: {temperature: 0}": "mode.temperature=0 is not accepted (in {file})\n  write a number above 0",
}


def test_a_mistake_in_one_s_own_file_is_told_with_the_file(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "own's (1)/experiment/own.yaml"
    file.parent.mkdir(parents=True)
    arguments = ("--config-dir", str(tmp_path / "own's (1)"), "experiment=own")
    for text, told in OWN_MISTAKES.items():
        file.write_text(f"# @package _global_\n{text}\n")
        status, _, err = call(*arguments)
        assert (status, len(err.splitlines())) == (1, 2), text
        assert err.startswith(f"error: {told.replace('{file}', str(file))}")
    file.write_text("mode: {temperature: 2}\n")
    told = f"error: {file} does not begin with # @package _global_\n  write this line at its top\n"
    assert call(*arguments) == (1, "", told)
    file.with_name("own.yaml").write_text("# @package _global_\nmode: {temperature: 0}\n")
    assert call(*arguments, "mode.temperature=-1")[2] == (  # the command line's own mistake names no file
        "error: mode.temperature=-1 is not accepted\n  write a number above 0\n"
    )
    (tmp_path / "own's (1)/model").mkdir()
    (tmp_path / "own's (1)/model/net.yaml").write_text("- 1\n")
    assert call(*arguments)[2] == (
        f"error: {tmp_path}/own's (1)/model/net.yaml holds no keys\n"
        "  write lines of the form KEY: VALUE into it, or remove it\n"
    )


def test_a_relative_path_that_is_not_there_is_told_with_where_it_begins(tmp_path: Path, call: Call) -> None:
    assert call("resume=out/x") == (
        1,
        "",
        "error: resume=out/x is not the directory of a run\n"
        f"  look into outputs/runs for it; out/x is looked for in {tmp_path}\n",
    )


def test_a_key_that_does_not_exist_is_never_taken_for_the_path_of_a_class(call: Call) -> None:
    assert "_target_" not in call("mode._targt_=x")[2]


def test_a_path_of_an_option_may_begin_with_a_tilde(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    told = f"error: --config-dir {tmp_path}/mine is not a folder\n  give the folder of your own files\n"
    assert call("--config-dir=~/mine")[2] == told
    assert call("--config-dir=~nobody-at-all/x")[2].startswith(
        "error: argument -cd/--config-dir: ~nobody-at-all/x is in the home directory of nobody\n  write distill-run "
    )


def test_ctrl_c_within_hydra_is_an_interruption(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stop:
            raise ConfigCompositionException from stop  # as Hydra does

    monkeypatch.setattr("hydra.compose", interrupted)
    assert call("seed=1") == (130, "", "")


LOADED = """
import signal
from distill_run.commands import installed

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may be told to ignore it
print("loaded", flush=True)
installed.{}()
"""
MOMENTS = 20


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run", [*TINY, "training.teacher.epochs=50"]),
        ("predict", ["RUN", "--errors", "--output=page.html"]),
        ("export", ["RUN", "--format=state_dict", "--output=exported", "--force"]),
        ("measure", ["RUN"]),
        ("report", ["RUN", "--output=reported"]),
        ("search", [*TINY, "mode.alpha=interval(0,1)", "--trials=1", "--search-dir=searched"]),
        ("store", ["verify", "--store-dir=STORE"]),
    ],
)
def test_ctrl_c_ends_a_command_at_any_moment_without_a_traceback(
    name: str, words: list[str], tiny_report: RunReport, tmp_path: Path
) -> None:
    """At moments drawn from a seed, from when Python itself is loaded to the end; the last ones may be too late."""
    run_dir = tiny_report.run_dir
    words = [word.replace("RUN", str(run_dir)).replace("STORE", str(run_dir.parent / "store")) for word in words]
    drawn, seconds, ends = random.Random(15), 0.0, []
    for moment in range(MOMENTS + 1):
        program = [sys.executable, "-c", LOADED.format(name), *words]
        process = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        begun = time.monotonic()
        if moment:  # the first one says how long it takes
            time.sleep(seconds * (moment - drawn.random()) / MOMENTS)
            process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        seconds = seconds or time.monotonic() - begun
        assert "Traceback" not in told
        ends.append(process.returncode)
    assert ends[0] == 0
    assert 130 in ends
    assert set(ends) <= {0, 130, -signal.SIGINT}  # the last is Python's own end, once all is done


def test_ctrl_c_while_python_ends_prints_no_traceback(tmp_path: Path) -> None:
    program = (
        "import atexit, os, signal, sys; from distill_run.commands import installed; sys.argv = ['distill-store']; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); installed.store()"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "Traceback" in ended.stderr) == (-signal.SIGINT, False)


def test_a_closed_pipe_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_run.console.console.forget_stdout", lambda: None)  # this one is pytest's
    console = Console()
    console.rich.file = ClosedPipe()
    with pytest.raises(Interrupted):
        console.note("nobody reads this")


def test_options_that_exclude_each_other_are_refused(call: Call) -> None:
    status, _, err = call("-m", "--cfg", "job", "seed=1,2")
    assert status == 1
    assert err.startswith("error: argument -c/--cfg: not allowed with argument -m/--multirun\n")
    told = "error: resume= goes on with a single run\n  leave -m out\n"
    assert call("-m", "resume=somewhere", "seed=0,1") == (1, "", told)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, call: Call) -> None:
    status, _, err = call(f"hydra.run.dir=out/{'a' * 300}")
    assert status == 1
    assert "(File name too long)" in err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    told = f"error: store_dir=file/store: cannot write in {tmp_path / 'file'} (Not a directory)\n"
    assert call("store_dir=file/store") == (1, "", f"{told}  choose another folder, as in store_dir=/tmp/outputs\n")


def test_a_checkpoint_that_cannot_be_read_is_refused_at_once(tmp_path: Path, call: Call) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    status, _, err = call("teacher_checkpoint=broken.pt")
    assert status == 1
    assert err.startswith("error: broken.pt is ")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


def test_hydra_finds_its_words_in_sys_argv_for_the_time_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["distill-run", "--teacher", "mlp"]
    monkeypatch.setattr("sys.argv", typed)
    with arguments_for_hydra(["--info"]):
        assert sys.argv == ["distill-run", "--info"]
    assert sys.argv is typed


def test_a_full_traceback_is_given_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["distill-run", "mode.alpha=2"])
    with pytest.raises(UserError, match=r"mode\.alpha=2 is not accepted"):
        installed.run()


def test_what_was_in_the_run_directory_stays_when_the_run_fails_early(photos: Path, call: Call) -> None:
    folder = photos.parent
    (folder / "mine").mkdir()
    (folder / "mine" / "keep.txt").write_text("precious")
    next((photos / "train" / "day").iterdir()).write_bytes(b"")
    for run_dir in ("mine", "."):
        overrides = ["dataset=image_folder", "dataset.root=photos", f"hydra.run.dir={run_dir}"]
        status, _, err = call(*overrides)
        assert status == 1
        assert "cannot be read: it is empty" in err
    assert (folder / "mine" / "keep.txt").read_text() == "precious"
    assert {path.name for path in folder.iterdir()} <= {"mine", "photos", "outputs"}


def test_every_value_of_a_sweep_is_checked_before_the_first_run(tmp_path: Path, call: Call) -> None:
    status, _, err = call("-m", "mode.temperature=1,0", "mode.alpha=0.5,7", "seed=range(3)")
    assert status == 1
    rejected_alpha = "mode.alpha=7 is not accepted\n  write a number from 0 to 1"
    assert err == f"error: {MISTAKES['mode.temperature=0']}\nerror: {rejected_alpha}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_help_lists_every_group_option_and_default() -> None:
    page = help_page()
    config = compose().config
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= 100
    for key in KEYS:
        OmegaConf.select(config, key, throw_on_missing=True)
        assert f"  {key}=" in page
    for option in ("digits", "image_folder", "cnn_tiny", "mlp", "jensen_shannon", "founding_cifar10", "one_cycle"):
        assert option in page
    assert re.search(r"^  mode {24}soft( {2}\w+)+$", page, flags=re.MULTILINE)
    assert set(option_names("mode")) <= set(page.split())
    assert all(f"  {group} " in page for group in GROUPS)


def test_the_help_fits_the_terminal_and_says_the_same_at_every_width() -> None:
    pages = {width: help_page(width=width) for width in (60, 80, 120)}
    for width, page in pages.items():
        assert max(map(len, page.splitlines())) <= width
    said = {width: page.replace("\\", "").split() for width, page in pages.items()}
    assert said[60] == said[80] == said[120]
    assert "  training.student.batch_size=" in pages[60]
    assert (
        "  distill-run +sweep=temperature_alpha \\\n      hydra/launcher=joblib hydra.launcher.n_jobs=2\n" in pages[60]
    )


def test_every_key_of_the_skeleton_is_in_the_help_or_says_why_not() -> None:
    unlisted = {
        "resume",  # under Usage, as is verify
        "verify",
        "checkpoint",  # its one key is listed
        "trusted_packages",  # named by the error that needs it
        "code_dir",  # --config-dir sets it
        "names",  # Hydra fills it in
    }
    assert set(compose().config) - set(GROUPS) - unlisted == {key for key in KEYS if "." not in key}


def test_the_command_shows_help_without_torch_and_the_configuration(command: Command, call: Call) -> None:
    shown = command("--help", PYTHONPROFILEIMPORTTIME="1")
    assert shown.returncode == 0
    assert shown.stdout == help_page(width=80)  # of the terminal
    assert " torch\n" not in shown.stderr
    _, config, _ = call("--cfg", "job", "--resolve", "mode.temperature=8")
    assert "  temperature: 8\n" in config
    assert "  mode: soft\n" in config


def test_shell_completion_knows_groups_options_and_keys(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, expected in {
        "distill-run teacher=cnn_t": "teacher=cnn_tiny",
        "distill-run student=ml": "student=mlp",
        "distill-run mode.temp": "mode.temperature=",
        "distill-run training/student/optimizer=adamw": "training/student/optimizer=adamw",
    }.items():
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        _, out, err = call("-sc", "query=bash")
        assert expected in out.split(), (line, out, err)


def test_the_command_runs_and_says_what_to_do_next(command: Command, tmp_path: Path) -> None:
    done = command(*TINY, "hydra.run.dir=out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "loading PyTorch ..."  # before the seconds that this takes
    assert lines[-4:-2] == ["report   out/report.html", "student  out/checkpoints/student.pt"]
    assert lines[-2].startswith("repeat   distill-run teacher=cnn_tiny student=mlp 'student.hidden=[8]' ")
    student = tmp_path / "out/checkpoints/student.pt"
    assert lines[-1].endswith(f'network = load_network("{student}")')
    assert json.loads((tmp_path / "out" / "environment.json").read_text())["command"] == lines[-2].removeprefix(
        "repeat   "
    )
    assert {path.name for path in tmp_path.iterdir()} == {"out", "outputs"}
    log = (tmp_path / "out" / "run.log").read_text()
    assert "torch: " in log
    assert "INFO" in log
