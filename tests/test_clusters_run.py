"""Sweeps through submitit (local jobs, and a stand-in for SLURM) and through Ray: whole, interrupted, lost, pre-empted.

Left out where submitit or Ray are not installed. All of it, for some minutes:
python -m pytest -n0 -m slow tests/test_clusters_run.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import slurm
from conftest import TINY
from distill_run import load_network
from distill_run.report.run_report import RunReport

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).with_name("distill-run"))
TWO = (*TINY, "mode.temperature=2,4")
LONG = (*TWO, "training.student.epochs=60", "baseline=false")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=1")
LOCAL = ("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.cpus_per_task=1")
RAY = ("hydra/launcher=ray_cluster", "hydra.launcher.remote.num_cpus=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted sweep, in one process."""
    folder = tmp_path_factory.mktemp("whole")
    assert end_of(begun(LONG, folder))[0] == 0
    return folder / "sweep"


@pytest.fixture
def local() -> tuple[str, ...]:
    pytest.importorskip("submitit")
    return LOCAL


@pytest.fixture
def commands_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for SLURM, whose jobs are processes of this machine."""
    pytest.importorskip("submitit")
    slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:{os.environ['PATH']}")
    return tmp_path / "slurm"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of Ray with two nodes, of one core each, in this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token into it
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def begun(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """The installed command, in a group of processes of its own, as a terminal has one."""
    return subprocess.Popen(
        [COMMAND, "-m", *arguments, "hydra.sweep.dir=sweep"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_of(sweep: subprocess.Popen[str]) -> tuple[int, str, str]:
    said = sweep.communicate(timeout=240)
    return sweep.returncode, *said


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def student_trains(point: Path) -> bool:
    """Whether a point has completed an epoch of its student, which has many more."""
    metrics = point / "metrics.jsonl"
    return metrics.exists() and '"student"' in metrics.read_text()


def statuses(sweep: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in sorted(sweep.glob("[0-9]/status.json"))]


def processes_of_jobs(sweep: Path) -> list[int]:
    """The processes that train; each is the child of one that submitit calls a job. In the order of the points."""
    jobs = [int(folder.name) for folder in (sweep / ".submitit").glob("[0-9]*")]
    listed = subprocess.run(["ps", "-eo", "ppid,pid"], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()[1:]]
    children = {int(parent): int(process) for parent, process in pairs}
    return [children[job] for job in sorted(jobs) if job in children]


def figures(sweep: Path) -> list[Any]:
    reports = [json.loads((sweep / point / "report.json").read_text()) for point in "01"]
    return [report["student"]["last"] for report in reports]


def same_students(sweep: Path, whole: Path) -> bool:
    """Whether the weights of all points' students are those of another sweep."""
    for point in "01":
        one, other = (load_network(folder / point / "checkpoints" / "student.pt") for folder in (sweep, whole))
        states = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        if not all(torch.equal(first, second) for first, second in states):
            return False
    return figures(sweep) == figures(whole)


def check_whole_sweep(folder: Path, launcher: Sequence[str], tiny_report: RunReport) -> None:
    """Two jobs at once share the teacher; the second is the run of the default temperature, to the last digit."""
    status, said, error = end_of(begun([*TWO, *launcher], folder))
    assert (status, error) == (0, "")
    assert statuses(folder / "sweep") == ["completed", "completed"]
    reports = [json.loads((folder / "sweep" / point / "report.json").read_text()) for point in "01"]
    assert [report["teacher"]["reused"] for report in reports].count(False) == 1
    for network in ("teacher", "baseline", "student"):
        assert reports[1][network]["selected"] == tiny_report.summary[network]["selected"]
    assert len([line for line in said.splitlines() if " mode.temperature=" in line and " val " in line]) == 2
    assert (folder / "sweep" / "sweep.html").is_file()
    assert json.loads((folder / "sweep" / "0" / "environment.json").read_text())["threads"] == 1


def test_a_sweep_of_local_jobs(tmp_path: Path, local: Sequence[str], tiny_report: RunReport) -> None:
    check_whole_sweep(tmp_path, local, tiny_report)


def test_a_sweep_over_two_nodes_of_ray(tmp_path: Path, nodes: Any, tiny_report: RunReport) -> None:
    check_whole_sweep(tmp_path, [*RAY, f"hydra.launcher.init.address={nodes.address}"], tiny_report)


def test_a_pre_empted_job_goes_on_and_its_end_is_that_of_an_uninterrupted_one(
    tmp_path: Path, local: Sequence[str], whole: Path
) -> None:
    sweep = begun([*LONG, *local], tmp_path)
    wait_for(lambda: student_trains(tmp_path / "sweep" / "0"))
    (first, _) = processes_of_jobs(tmp_path / "sweep")
    os.kill(first, signal.SIGUSR2)  # as SLURM sends it because of --signal
    assert end_of(sweep)[0] == 0
    outputs = "".join(path.read_text() for path in (tmp_path / "sweep" / ".submitit").glob("*/*.out"))
    assert outputs.count("Requeued job") == 1
    assert same_students(tmp_path / "sweep", whole)


def test_a_pre_empted_job_of_slurm_goes_on(tmp_path: Path, commands_of_slurm: Path, whole: Path) -> None:
    """SLURM sends SIGTERM first where it pre-empts, and the signal of --signal after it."""
    sweep = begun([*LONG, *SLURM], tmp_path)
    wait_for(lambda: student_trains(tmp_path / "sweep" / "0"))
    first = int((commands_of_slurm / "1000_0.pid").read_text())
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: statuses(tmp_path / "sweep")[0] == "interrupted")
    os.kill(first, signal.SIGUSR2)
    assert end_of(sweep)[::2] == (0, "")
    assert (tmp_path / "sweep" / ".submitit" / "1000_0" / "1000_0_0_log.out").read_text().count("Requeued job") == 1
    assert same_students(tmp_path / "sweep", whole)
    script = (commands_of_slurm / "1000.sbatch").read_text()
    for line in ("--signal=USR2@120", "--array=0-1%2", "--cpus-per-task=1", "--gpus-per-node=1", "--time=240"):
        assert f"#SBATCH {line}\n" in script


def test_interrupted_jobs_of_slurm_are_cancelled_and_the_same_command_goes_on(
    tmp_path: Path, commands_of_slurm: Path
) -> None:
    sweep = begun([*LONG, *SLURM], tmp_path)
    wait_for(lambda: all(student_trains(tmp_path / "sweep" / point) for point in "01"))
    sweep.send_signal(signal.SIGINT)
    assert end_of(sweep)[0] == 130
    assert statuses(tmp_path / "sweep") == ["interrupted", "interrupted"]
    assert [(commands_of_slurm / f"1000_{task}.state").read_text() for task in (0, 1)] == ["CANCELLED", "CANCELLED"]
    assert end_of(begun([*LONG, *SLURM], tmp_path))[0] == 0
    assert statuses(tmp_path / "sweep") == ["completed", "completed"]


@pytest.mark.parametrize("to_all", [False, True], ids=["the command", "all processes, as Ctrl-C does"])
def test_interrupted_local_jobs_save_their_state_and_the_same_command_goes_on(
    to_all: bool, tmp_path: Path, local: Sequence[str]
) -> None:
    sweep = begun([*LONG, *local], tmp_path)
    wait_for(lambda: all(student_trains(tmp_path / "sweep" / point) for point in "01"))
    (os.killpg if to_all else os.kill)(sweep.pid, signal.SIGINT)
    status, said, _ = end_of(sweep)
    assert status == 130
    assert "interrupted; the same command goes on with it" in said
    assert statuses(tmp_path / "sweep") == ["interrupted", "interrupted"]
    assert processes_of_jobs(tmp_path / "sweep") == []
    assert end_of(begun([*LONG, *local], tmp_path))[0] == 0
    assert statuses(tmp_path / "sweep") == ["completed", "completed"]


def test_a_lost_local_job_is_told_and_the_same_command_does_it(tmp_path: Path, local: Sequence[str]) -> None:
    sweep = begun([*LONG, *local], tmp_path)
    wait_for(lambda: student_trains(tmp_path / "sweep" / "0"))
    os.kill(processes_of_jobs(tmp_path / "sweep")[0], signal.SIGKILL)
    status, _, error = end_of(sweep)
    assert status == 1
    assert error.startswith("error: the job of point 0 was lost: FINISHED; its output is ")
    assert error.endswith("  the same command runs it again, from its last saved state\n")
    assert statuses(tmp_path / "sweep") == ["running", "completed"]
    assert end_of(begun([*LONG, *local], tmp_path))[0] == 0
    assert statuses(tmp_path / "sweep") == ["completed", "completed"]


def test_the_command_is_killed_and_typed_again_while_its_jobs_are_at_work(
    tmp_path: Path, local: Sequence[str], whole: Path
) -> None:
    sweep = begun([*LONG, *local], tmp_path)
    wait_for(lambda: student_trains(tmp_path / "sweep" / "0"))
    sweep.kill()
    sweep.communicate()
    assert end_of(begun([*LONG, *local], tmp_path))[::2] == (0, "")
    assert same_students(tmp_path / "sweep", whole)
    logs = [(tmp_path / "sweep" / point / "run.log").read_text() for point in "01"]
    assert [log.count("train images a class") for log in logs] == [1, 1]  # the other jobs waited and had nothing to do


def test_a_point_goes_on_elsewhere_when_its_node_of_ray_is_lost(tmp_path: Path, nodes: Any, whole: Path) -> None:
    sweep = begun([*LONG, *RAY, f"hydra.launcher.init.address={nodes.address}"], tmp_path)
    wait_for(lambda: all(student_trains(tmp_path / "sweep" / point) for point in "01"))
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    assert end_of(sweep)[0] == 0
    assert same_students(tmp_path / "sweep", whole)


def test_interrupted_tasks_of_ray_save_their_state_and_the_same_command_goes_on(tmp_path: Path, nodes: Any) -> None:
    launcher = [*RAY, f"hydra.launcher.init.address={nodes.address}"]
    sweep = begun([*LONG, *launcher], tmp_path)
    wait_for(lambda: all(student_trains(tmp_path / "sweep" / point) for point in "01"))
    sweep.send_signal(signal.SIGINT)
    assert end_of(sweep)[0] == 130
    assert statuses(tmp_path / "sweep") == ["interrupted", "interrupted"]
    assert end_of(begun([*LONG, *launcher], tmp_path))[0] == 0
    assert statuses(tmp_path / "sweep") == ["completed", "completed"]
