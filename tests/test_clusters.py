"""Sweeps on clusters, without one: what is refused, what is sent to the engines, lost jobs, signals."""

import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from conftest import InProcess
from distill_run.commands import installed
from distill_run.commands.plugins import offer_plugins
from distill_run.commands.preflight import preflight
from distill_run.commands.runner import run_recorded
from distill_run.config.compose import compose
from distill_run.config.plugins import is_here
from distill_run.config.settings import compose_config
from distill_run.errors import Interrupted, UserError
from distill_run.files import RunFiles
from distill_run.stages.rehearse import rehearse
from hydra_plugins.distill_run._cluster import ClusterLauncher, LostJobError
from hydra_plugins.distill_run._jobs import SlurmPoint, Sweep


class Launcher(ClusterLauncher):
    """Its jobs are what they return, or what they raise."""

    def __init__(self, **jobs: Any) -> None:
        self.jobs = jobs
        self.stopped: list[Any] = []
        self.setup(hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]

    def submit(self, sweep: Sweep, points: dict[int, Sequence[str]]) -> dict[int, Any]:
        return {number: self.jobs[overrides[0]] for number, overrides in points.items()}

    def wait(self, job: Any) -> JobReturn:
        if isinstance(job, BaseException):
            raise job
        return JobReturn(_return_value=job, status=JobStatus.COMPLETED)

    def stop(self, jobs: Sequence[Any]) -> None:
        self.stopped.extend(jobs)


def test_all_jobs_are_waited_for_and_the_lost_ones_are_named() -> None:
    launcher = Launcher(a=0.5, b=LostJobError("OUT_OF_MEMORY"), c=0.7)
    assert [each.return_value for each in launcher.launch([["a"], ["c"]], 3)] == [0.5, 0.7]
    with pytest.raises(UserError) as caught:
        launcher.launch([["b"], ["a"], ["b"]], 3)
    assert str(caught.value) == (
        "the job of point 3 was lost: OUT_OF_MEMORY\n  the same command runs it again, from its last saved state\n"
        "the job of point 5 was lost: OUT_OF_MEMORY\n  the same command runs it again, from its last saved state"
    )
    assert launcher.stopped == []


def test_an_interruption_stops_every_job() -> None:
    interruption = Interrupted("SIGINT")
    launcher = Launcher(a=0.5, b=interruption)
    with pytest.raises(Interrupted):
        launcher.launch([["a"], ["b"]], 0)
    assert launcher.stopped == [0.5, interruption]


class Stopped:
    """A sweep whose point is interrupted by a signal."""

    def __init__(self, *name: str) -> None:
        self.name = name

    def run(self, number: int, overrides: Sequence[str]) -> JobReturn:
        raise Interrupted(*self.name)


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that are handed on; the handler is that of whoever waits for them, as submitit does."""
    found: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: found.append(number))
    terminated = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGUSR2, before)
    signal.signal(signal.SIGTERM, terminated)


def test_the_signal_that_stopped_a_point_is_handed_on(received: list[int]) -> None:
    with pytest.raises(Interrupted):
        SlurmPoint(Stopped("SIGUSR2"), is_slurm=True)(0, [])  # type: ignore[arg-type]
    assert received == [signal.SIGUSR2]


def test_after_sigterm_a_job_of_slurm_waits_for_what_follows(
    received: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    for is_slurm, expected in ((False, []), (True, [60.0])):
        with pytest.raises(Interrupted):
            SlurmPoint(Stopped("SIGTERM"), is_slurm)(0, [])  # type: ignore[arg-type]
        assert waited == expected
    assert received == []


def launcher_of(*words: str) -> Any:
    """The launcher as Hydra builds it."""
    offer_plugins()
    return Plugins.instance()._instantiate(compose([*words, "hydra.sweep.dir=out"]).hydra.launcher)


def test_null_is_left_to_slurm_and_the_cores_are_told_to_srun_and_to_openmp() -> None:
    assert launcher_of("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=3")._parameters == {
        "name": "distill-run",
        "timeout_min": 240,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": 3,
        "slurm_signal_delay_s": 120,
        "slurm_array_parallelism": 100,
        "slurm_setup": ["export SRUN_CPUS_PER_TASK=3", "export OMP_NUM_THREADS=3"],
    }


def test_the_tasks_of_ray_get_what_the_command_says() -> None:
    launcher = launcher_of("hydra/launcher=ray_cluster", "hydra.launcher.remote.num_gpus=1")
    assert launcher._remote == {"num_cpus": 2, "num_gpus": 1, "max_retries": 3}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("slurm", "needs submitit, which is not installed\n  write pip install submitit"),
        ("ray_cluster", "needs ray, which is not installed\n  write pip install 'ray[default]<3'"),
        ("joblib", "needs hydra-joblib-launcher, which is not installed\n  write pip install hydra-joblib-launcher"),
    ],
)
def test_an_engine_that_is_not_installed_is_told_before_anything_runs(
    option: str, told: str, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_run.config.plugins._is_installed", lambda _: False)
    done = in_process(installed.run, "distill-run", "-m", "seed=0,1", f"hydra/launcher={option}")
    assert done[::2] == (1, f"error: hydra/launcher={option} {told}\n")
    assert list(tmp_path.iterdir()) == []


def test_slurm_is_looked_for_before_anything_runs(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_run.config.plugins._is_installed", lambda _: True)
    monkeypatch.setattr("shutil.which", lambda _: None)
    for keys, told in (
        (
            (),
            "hydra/launcher=slurm: this machine has no sbatch\n  type the command on a login node of the cluster; "
            "hydra.launcher.cluster=local runs the jobs here",
        ),
        (
            ("hydra.launcher.cluster=pbs",),
            "hydra.launcher.cluster=pbs is not accepted\n  write one of slurm, local",
        ),
    ):
        done = in_process(installed.run, "distill-run", "-m", "seed=0,1", "hydra/launcher=slurm", *keys)
        assert done[::2] == (1, f"error: {told}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["hydra/launcher=fused", "+hydra.launcher.at_onse=4"],
            "hydra.launcher.at_onse is not a key of hydra/launcher=fused\n  did you mean hydra.launcher.at_once?",
        ),
        (
            ["hydra/launcher=fused", "+hydra.launcher.n_jobs=2"],
            "hydra.launcher.n_jobs is not a key of hydra/launcher=fused\n  its keys are at_once",
        ),
        (
            ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "+hydra.launcher.exclusiv=true"],
            "hydra.launcher.exclusiv is not a key of hydra/launcher=slurm\n  did you mean hydra.launcher.exclusive?",
        ),
        (
            ["hydra/launcher=site", "--config-dir=.", "hydra.launcher.cluster=local"],
            "hydra.launcher.partitoin is not a key of hydra/launcher=site (in hydra/launcher/site.yaml)\n"
            "  did you mean hydra.launcher.partition?",
        ),
        (
            ["+hydra.sweeper.max_batch=4"],
            "hydra.sweeper.max_batch is not a key of hydra/sweeper=grid\n  did you mean hydra.sweeper.max_batch_size?",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_key_that_the_launcher_does_not_know_is_told_before_anything_is_written(
    words: list[str], told: str, in_process: InProcess, tmp_path: Path
) -> None:
    own = tmp_path / "hydra" / "launcher" / "site.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [slurm]\npartitoin: gpu\n")
    done = in_process(installed.run, "distill-run", "-m", "seed=0,1", *words)
    assert done[::2] == (1, f"error: {told}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["hydra"]


def test_what_submitit_knows_can_be_added(tmp_path: Path) -> None:
    words = ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "+hydra.launcher.exclusive=true"]
    preflight([*words, "seed=0,1", f"hydra.sweep.dir={tmp_path}"], None, multirun=True)


def test_a_point_waits_while_another_process_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = FileLock(RunFiles(tmp_path).lock)
    held.acquire()
    begun = threading.Event()

    def read(folder: Path) -> float:
        begun.set()
        return 0.5

    monkeypatch.setattr("distill_run.commands.runner._completed_goodness", read)
    with ThreadPoolExecutor() as threads:
        point = threads.submit(run_recorded, lambda: OmegaConf.create(), [], tmp_path, "")
        assert not begun.wait(0.3)
        held.release()
        assert point.result() == 0.5
    assert list(tmp_path.iterdir()) == []


def test_the_device_is_that_of_the_machine_where_a_point_runs(tmp_path: Path) -> None:
    own = tmp_path / "hydra" / "launcher" / "site.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [slurm]\npartition: gpu\n")
    for words, expected in (
        (["hydra/launcher=basic"], True),
        (["hydra/launcher=slurm"], False),
        (["hydra/launcher=site"], False),
        (["hydra/launcher=slurm", "hydra.launcher.cluster=local"], True),
        (["hydra/launcher=ray_cluster"], True),
        (["hydra/launcher=ray_cluster", "hydra.launcher.init.address=auto"], False),
    ):
        assert is_here(compose([*words, "hydra.sweep.dir=out"], tmp_path).hydra) == expected
    settings = compose_config(["device=mps"])
    with pytest.raises(UserError, match="mps"):
        rehearse(settings)
    rehearse(settings, is_here=False)
