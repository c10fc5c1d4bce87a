"""Where a run was cut short: what its last.pt holds, and how a training goes on from there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_run.engine.loop import Trainer
from distill_run.errors import UserError, user_error
from distill_run.stages.training import Training
from distill_run.stages.watcher import Watcher
from distill_run.tensor_files import load


@dataclass(frozen=True)
class ResumePoint:
    """Where a run was cut short: the content of its last.pt.

    `program` is None in the files of versions that did not write it.
    """

    path: Path
    stage: str
    fingerprint: str
    program: str | None
    trainer: dict[str, Any]

    def go_on(self, trainer: Trainer, training: Training, watcher: Watcher) -> None:
        """Bring a trainer to this point if its training was cut short here; raises UserError where it does not fit."""
        point = self._of_stage(training.stage)
        if point is None:
            return
        if point.program != training.program:
            watcher.warned(
                f"{point.path} was written by another version of this program: "
                "it is not checked whether the dataset and the teacher are still the same"
            )
        elif point.fingerprint != training.fingerprint:
            raise user_error(
                f"the inputs of the {training.stage} are not those of {point.path} (dataset or teacher have changed)",
                "start a new run, without resume=",
            )
        try:
            trainer.load_state(point.trainer)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise user_error(
                f"{point.path} does not fit the {training.stage}: {type(error).__name__} {error}",
                "start a new run, without resume=",
            ) from error

    def _of_stage(self, stage: str) -> "ResumePoint | None":
        """The point of one of the trainings that were cut short at once; None where the stage is not among them."""
        if stage == self.stage:
            return self
        for point in self.trainer.get("beside", ()):
            if point["stage"] == stage:
                return ResumePoint(self.path, **point)
        return None


def read_resume_point(path: Path, watcher: Watcher) -> ResumePoint | None:
    """What a run left when it was cut short; None where the file is damaged: then the training in it begins anew."""
    try:
        content = load(path)
    except UserError as error:
        watcher.warned(f"{error.mistakes[0].what}: the training that was cut short begins anew")
        return None
    if not _is_point(content) or not all(map(_is_point, content["trainer"].get("beside", []))):
        raise user_error(f"{path} is not the checkpoint of a run", "start a new run, without resume=")
    return ResumePoint(path, content["stage"], content["fingerprint"], content.get("program"), content["trainer"])


def _is_point(content: Any) -> bool:
    """Whether something has the parts of a resume point."""
    if not isinstance(content, dict) or not content.keys() >= {"stage", "fingerprint", "trainer"}:
        return False
    return isinstance(content["trainer"], dict)
