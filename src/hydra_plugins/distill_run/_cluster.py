"""What the launchers of the clusters have in common: all points are sent off, and all of them waited for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from distill_run.errors import Mistake, refuse
from hydra_plugins.distill_run._jobs import Sweep

AGAIN = "the same command runs it again, from its last saved state"


class LostJobError(Exception):
    """A job ended without a result, or with an error that nobody expected; the message says how."""


class ClusterLauncher(Launcher):
    """Sends all points off, waits for all of them, also where one is lost, and stops them if it is interrupted."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Hydra's Launcher."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See Hydra's Launcher. Raises UserError that names the lost jobs once all have ended."""
        sweep = Sweep(self._context, self._config, self._task, Singleton.get_state())
        points = dict(enumerate(job_overrides, initial_job_idx))
        lost: list[Mistake] = []
        jobs = self.submit(sweep, points)
        try:
            returns = [self._outcome(number, job, lost) for number, job in jobs.items()]
        except BaseException:
            self.stop(list(jobs.values()))
            raise
        refuse(lost, "jobs that were lost", AGAIN)
        return returns

    def _outcome(self, number: int, job: Any, lost: list[Mistake]) -> JobReturn:
        try:
            return self.wait(job)
        except LostJobError as error:
            lost.append(Mistake(f"the job of point {number} was lost: {error}", AGAIN))
            return JobReturn(status=JobStatus.COMPLETED)  # without a figure, like a point that has failed

    @abstractmethod
    def submit(self, sweep: Sweep, points: dict[int, Sequence[str]]) -> dict[int, Any]:
        """Send all points off; returns their jobs by the points' numbers."""

    @abstractmethod
    def wait(self, job: Any) -> JobReturn:
        """What a job returns, once it has ended; raises LostJobError."""

    @abstractmethod
    def stop(self, jobs: Sequence[Any]) -> None:
        """Ask all jobs to save their state and end."""
