"""The launcher of hydra/launcher=fused."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class FusedLauncher(Launcher):
    """Runs the points of a sweep in this process; those that can train together do, up to `at_once` of them.

    Each has the directory and the files that it has in a sweep of the usual kind.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        """See Launcher. `task_function` runs one point alone: it is not needed."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """See Launcher."""
        from distill_run.commands.fused import FusedSweep

        return FusedSweep(self.hydra_context, self.config, self.at_once).run(job_overrides, initial_job_idx)
