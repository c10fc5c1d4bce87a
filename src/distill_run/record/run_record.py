"""The run directory as a watcher: what happens is written down, whole, as it happens."""

import dataclasses
import logging
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml

from distill_run import checkpoint, tensor_files
from distill_run.files import RunFiles, told_of_no_room, write_json, write_json_lines, write_text
from distill_run.record.status import RunStatus, status_after, write_status
from distill_run.stages.trained import Trained
from distill_run.stages.watcher import RunFacts, StageFacts, Watcher

log = logging.getLogger(__name__)


class RunRecord(Watcher):
    """Keeps config.yaml, environment.json, status.json, metrics.jsonl, last.pt and student.pt in a run's directory.

    `warnings` are those of the run so far; `environment` and `config` are what was written at its beginning.
    """

    def __init__(self, run_dir: Path) -> None:
        self.files = RunFiles(run_dir)
        self.warnings: list[str] = []
        self.environment: dict[str, Any] = {}
        self.config = ""
        self._metrics: list[dict[str, Any]] = []  # of the stages that have ended
        self._stage: StageFacts | None = None  # in progress
        self._student: Trained | None = None  # the one that validation prefers so far

    def warned(self, text: str) -> None:
        """See Watcher."""
        self.warnings.append(text)

    def run_begun(self, run: RunFacts) -> None:
        """See Watcher."""
        self.environment = dict(run.environment)
        self.config = yaml.safe_dump({**dataclasses.asdict(run.settings), "resume": None}, sort_keys=False)
        if run.settings.resume is None:  # a run that failed before its first checkpoint may have left some
            self.files.metrics.unlink(missing_ok=True)
        write_json(self.files.environment, self.environment)
        write_text(self.files.config, self.config)
        self._write_status(RunStatus("running"))
        for name, value in self.environment.items():
            log.info("%s: %s", name, value)

    def stage_begun(self, stage: StageFacts) -> None:
        """See Watcher."""
        self._stage = stage

    def state_saved(self, state: dict[str, Any]) -> None:
        """See Watcher. The trainings of a learning-rate search are short: they begin anew after an interruption."""
        stage = self._stage
        assert stage is not None
        if stage.is_search:
            return
        rows = [*state["history"]]
        for point in state.get("beside", ()):
            rows += point["trainer"]["history"]
        with told_of_no_room("hydra.run.dir", self.files.run_dir):
            tensor_files.save(self.files.last, stage.point(state))
            write_json_lines(self.files.metrics, [*self._metrics, *rows])

    def stage_ended(self, trained: Trained) -> None:
        """See Watcher."""
        self._metrics.extend(trained.history)
        write_json_lines(self.files.metrics, self._metrics)
        if trained.stage.startswith("student") and self._is_preferred(trained):
            self._student = trained
            checkpoint.save_network(self.files.student, trained.own_network, trained.node, trained.name)

    def run_ended(self, error: BaseException | None) -> None:
        """See Watcher."""
        status = status_after(error)
        # After a failure, the disk may be what has failed.
        with suppress(OSError) if status.status == "failed" else nullcontext():
            self._write_status(status)
        if error is None:
            remove_finished(self.files)

    def _is_preferred(self, student: Trained) -> bool:
        return self._student is None or student.rank > self._student.rank

    def _write_status(self, status: RunStatus) -> None:
        write_status(self.files.run_dir, status)


def remove_finished(files: RunFiles) -> None:
    """Remove what a run with several students keeps of them until it is completed."""
    shutil.rmtree(files.finished, ignore_errors=True)
