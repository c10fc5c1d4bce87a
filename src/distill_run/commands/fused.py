"""hydra/launcher=fused: the points of a sweep in one process, where those that allow it train together."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from distill_run.commands.point import Point, place_point
from distill_run.commands.runner import recorded_story
from distill_run.config.compose import literal_config, plain_config
from distill_run.engine.interrupt import StopRequest, end_with_parent
from distill_run.errors import UserError
from distill_run.fingerprints import fingerprint_of
from distill_run.rules import whole
from distill_run.stages.stories import finish_together
from distill_run.stages.wanted import Story

# Points that train together may differ in these keys: they are a student's own, and change no teacher. With another
# view_seed, which is the seed unless it is given, they share neither batches nor the logit bank, but a GPU.
OWN = ("seed", "training.view_seed", "mode", "names.mode", "watchers", "tracker", "export", "export_int8")
OWN_OF_RECIPE = (
    *("optimizer", "schedule", "clip_norm", "label_smoothing", "patience", "ema", "decay_norms", "backbone_lr_factor"),
    *("freeze_batch_norm", "lr_search", "lr_search_epochs"),
)


@dataclass(frozen=True)
class Opened:
    """A point that Hydra has composed: what Hydra is to be told of it, its story, and who may train with it."""

    result: JobReturn
    story: Story[float | None] | None
    group: str


@dataclass(frozen=True)
class FusedSweep:
    """Runs a sweep's points in this process; of those of a group, up to `at_once` train together."""

    hydra_context: HydraContext
    config: DictConfig
    at_once: int

    def run(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """What Hydra is told of each point; they are numbered from `first`."""
        whole(1).check("hydra.launcher.at_once", self.at_once)
        setup_globals()
        end_with_parent()
        with StopRequest() as stop:
            opened = [self._open(number, overrides, stop) for number, overrides in enumerate(job_overrides, first)]
            for group in self._groups(opened):
                _run_together(group)
        return [point.result for point in opened]

    def _open(self, number: int, overrides: Sequence[str], stop: StopRequest) -> Opened:
        """Let Hydra compose a point and make its folder; nothing of it is run yet."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        placed: list[tuple[Point | None, str]] = []

        def place(task: DictConfig) -> None:
            with contextlib.chdir(HydraConfig.get().runtime.cwd):
                point = place_point(task)
            placed.append((None, "") if point is None else _composed(point))

        result = run_job(
            hydra_context=self.hydra_context,
            task_function=place,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        _ = result.return_value  # raises what went wrong
        ((point, group),) = placed
        return Opened(result, point and recorded_story(*point, stop), group)

    def _groups(self, opened: Sequence[Opened]) -> list[list[Opened]]:
        """The points that train together, in the order of the first of each group."""
        groups: dict[str, list[Opened]] = {}
        for number, point in enumerate(opened):
            if point.story is not None:
                groups.setdefault(point.group or str(number), []).append(point)
        return [
            group[first : first + self.at_once]
            for group in groups.values()
            for first in range(0, len(group), self.at_once)
        ]


def _composed(point: Point) -> tuple[Point, str]:
    """The point with its configuration composed: Hydra's part of it is there only now; and the name of its group.

    A point whose configuration cannot be composed is in no group: it fails by itself. Nor is one that trains in several
    processes: this process can be one of a single group of them.
    """
    try:
        config = literal_config(plain_config(point.compose()))
    except UserError as error:
        refusal = error

        def refuse() -> DictConfig:
            raise refusal

        return point._replace(compose=refuse), ""
    group = group_of(config) if config.device.num_processes == 1 else ""
    return point._replace(compose=lambda: config), group


def group_of(config: DictConfig) -> str:
    """The same for the configurations of points that may train together, and only for these."""
    shared = plain_config(config)
    for key in (*OWN, *(f"training.student.{name}" for name in OWN_OF_RECIPE)):
        *path, last = key.split(".")
        node: dict[str, Any] = shared
        for part in path:
            node = node[part]
        del node[last]
    return fingerprint_of(shared)


def _run_together(group: Sequence[Opened]) -> None:
    """Run the points of a group, and tell Hydra what came of each."""
    stories = [point.story for point in group if point.story is not None]
    for point, end in zip(group, finish_together(stories), strict=True):
        point.result.status = JobStatus.FAILED if isinstance(end, Exception) else JobStatus.COMPLETED
        point.result.return_value = end
