"""Points as jobs of SLURM, by submitit."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn

from distill_run.engine.interrupt import GRACE_SECONDS
from distill_run.errors import first_line, user_error
from hydra_plugins.distill_run._cluster import ClusterLauncher, LostJobError
from hydra_plugins.distill_run._jobs import SlurmPoint, Sweep

# Parameters that submitit has for every engine; the others get the engine's name in front.
COMMON = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")


def known_parameters() -> list[str]:
    """The names that `SlurmLauncher` takes as `parameters`: those of submitit."""
    from submitit import SlurmExecutor

    return [*COMMON, *SlurmExecutor._valid_parameters()]


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Ignore SIGINT within the block; processes that begin in it ignore it, too, until they say otherwise.

    Those of submitit on this machine would otherwise kill the points a second after a terminal has sent it to all.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class SlurmLauncher(ClusterLauncher):
    """`cluster` is slurm, or local: then the jobs are processes of this machine, all of which start at once.

    The parameters are those of submitit's executors, without the name of the engine in front; None is left to SLURM.
    """

    def __init__(self, cluster: str, folder: str, max_num_timeout: int, **parameters: Any) -> None:
        self._cluster, self._folder, self._max_num_timeout = cluster, folder, max_num_timeout
        self._parameters = {
            key if key in COMMON else f"slurm_{key}": value for key, value in parameters.items() if value is not None
        }

    def submit(self, sweep: Sweep, points: dict[int, Sequence[str]]) -> dict[int, Any]:
        """See ClusterLauncher. Raises UserError where SLURM or submitit refuse the jobs."""
        import submitit

        try:
            executor = submitit.AutoExecutor(
                self._folder, cluster=self._cluster, slurm_max_num_timeout=self._max_num_timeout
            )
            executor.update_parameters(**self._parameters)
            point = SlurmPoint(sweep, self._cluster == "slurm")
            with _no_ctrl_c():
                jobs = executor.map_array(point, points.keys(), points.values())
        except (RuntimeError, ValueError, NameError, TypeError, subprocess.CalledProcessError) as error:
            raise user_error(
                f"hydra/launcher=slurm: the jobs were refused: {first_line(error)}",
                "mend hydra.launcher.KEY; hydra.launcher.cluster=local runs the jobs on this machine",
            ) from error
        return dict(zip(points, jobs, strict=True))

    def wait(self, job: Any) -> JobReturn:
        """See ClusterLauncher."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            returned: JobReturn = job.result()
        except (UncompletedJobError, FailedJobError) as error:
            raise LostJobError(f"{job.state}; its output is {job.paths.stderr}") from error
        return returned

    def stop(self, jobs: Sequence[Any]) -> None:
        """See ClusterLauncher. Of an array, one call stops all jobs."""
        if self._cluster == "slurm":
            subprocess.run(["scancel", *dict.fromkeys(job.job_id.split("_")[0] for job in jobs)], check=False)
            return
        for job in jobs:
            if not job.done():
                os.kill(int(job.job_id), signal.SIGTERM)  # submitit's own way gives them a second
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and not all(job.done() for job in jobs):
            time.sleep(0.1)
