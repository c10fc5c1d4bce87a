"""What is sent to another process, or to another machine, to do a point of a sweep there.

Hydra executes the modules of its plug-ins anew when it looks for them: objects of classes from before could not be
pickled. It leaves alone modules that begin with _, as this one.
"""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from distill_run.engine.interrupt import GRACE_SECONDS
from distill_run.errors import Interrupted


@dataclass(frozen=True)
class Sweep:
    """All that a point needs in a process that knows nothing of the sweep yet."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    singletons: dict[Any, Any]

    def run(self, number: int, overrides: Sequence[str]) -> JobReturn:
        """Do the point with this number."""
        Singleton.set_state(self.singletons)
        setup_globals()
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


@dataclass(frozen=True)
class SlurmPoint:
    """A point as submitit pickles it; SLURM may start it several times."""

    sweep: Sweep
    is_slurm: bool

    def __call__(self, number: int, overrides: Sequence[str]) -> JobReturn:
        """Do the point. A signal that has stopped it is handed on to submitit, which puts the job back into the queue.

        SIGTERM comes from scancel, then SIGKILL follows, or before a pre-emption, then submitit's signal follows or
        SLURM puts the job back itself: a process that ended before would not be started again.
        """
        if not self.is_slurm:  # submitit ignores it; while a point trains, it saves its state
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            return self.sweep.run(number, overrides)
        except Interrupted as stop:
            number_of_signal = signal.Signals[stop.args[0]] if stop.args else signal.SIGINT
            if number_of_signal != signal.SIGTERM:
                signal.raise_signal(number_of_signal)
            elif self.is_slurm:
                time.sleep(GRACE_SECONDS)
            raise

    def checkpoint(self, *arguments: Any) -> Any:
        """The job that goes on, for submitit: the same, because the point's folder holds its state."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)
