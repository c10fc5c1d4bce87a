"""Hydra's grid sweep, in which each point is composed once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from distill_run.config.overrides import all_points
from hydra_plugins.distill_run._loader import SweepLoader


class GridSweeper(Sweeper):
    """Runs every combination of the swept values, in the order of Hydra's own sweeper.

    That one reads and merges all files twice for each point. `params` are not read here: the command `distill-run` has
    made overrides of them.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        self.max_batch_size = max_batch_size
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See Sweeper."""
        self.config = config
        self.loader = SweepLoader(hydra_context.config_loader, config)
        context = HydraContext(cast(ConfigLoader, self.loader), hydra_context.callbacks)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """See Sweeper. What cannot be composed is told before the first point begins."""
        assert self.config is not None
        assert self.launcher is not None
        points = list(all_points(arguments))
        for point in points:
            self.loader.variants.prepare(point)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        results, size = [], self.max_batch_size or len(points)
        for first in range(0, len(points), size):
            results.append(self.launcher.launch(points[first : first + size], initial_job_idx=first))
            for job in results[-1]:
                _ = job.return_value  # raises what a point has raised
        return results
