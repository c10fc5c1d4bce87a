"""The tracker for Weights & Biases: a run in the folder `wandb` of the run's directory, offline unless asked."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distill_run.record.status import RunStatus
from distill_run.rules import TEXT, one_of, optional
from distill_run.stages.watcher import RunFacts
from distill_run.trackers.tracker import Results, Tracker, configuration, run_name, sweep_name

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

EXIT_CODES = {"completed": 0, "pruned": 0, "interrupted": 130}  # of a failed run 1; other than 0 is shown as failed


class WandB(Tracker):
    """Logs epochs by stage, the configuration, and at the end the figures, the table and the pictures."""

    package = "wandb"
    _run_of_wandb: "Run | None" = None

    def __init__(self, *, project: str, entity: str | None, mode: str) -> None:
        TEXT.check("project", project)
        optional(TEXT).check("entity", entity)
        one_of("offline", "online").check("mode", mode)
        self.project = project
        self.entity = entity
        self.mode = mode
        self.stages: set[str] = set()

    @property
    def run(self) -> "Run":
        """The run of Weights & Biases."""
        assert self._run_of_wandb is not None
        return self._run_of_wandb

    def begin(self, run: RunFacts) -> None:
        """See Tracker. A run that goes on keeps its id, so that both parts become one run when they are uploaded."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reads it when it is loaded
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,  # of the machine, which a thread would measure
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        folder = run.run_dir.resolve()
        self._run_of_wandb = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,  # type: ignore[arg-type]
            dir=str(folder),
            id=_earlier_id(folder),
            resume="allow" if self.mode == "online" else None,
            name=run_name(folder),
            group=sweep_name(folder),
            config=configuration(run),
            reinit="create_new",
            settings=settings,
        )

    def add_epoch(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """See Tracker. Each stage counts its own epochs."""
        if stage not in self.stages:
            self.stages.add(stage)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
        self.run.log({f"{stage}/{name}": value for name, value in {"epoch": epoch, **figures}.items()})

    def add_results(self, results: Results) -> None:
        """See Tracker."""
        import wandb

        pictures = {f"report/{path.stem}": wandb.Image(str(path)) for path in results.pictures}
        self.run.log({"networks": wandb.Table(columns=list(results.columns), data=results.rows), **pictures})
        self.run.summary.update({**results.figures, "conclusion": results.conclusion})

    def end(self, status: RunStatus) -> None:
        """See Tracker."""
        self.run.summary["status"] = status.status
        self.run.finish(exit_code=EXIT_CODES.get(status.status, 1))


def _earlier_id(run_dir: Path) -> str | None:
    """The id of the part of the run that was tracked before it was cut short, from the name of its folder."""
    folders = sorted((run_dir / "wandb").glob("*run-*-*"))
    return folders[-1].name.rpartition("-")[2] if folders else None
