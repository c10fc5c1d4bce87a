"""The file status.json: whether a run is running, completed, failed, interrupted or pruned."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from distill_run.errors import PrunedError
from distill_run.files import RunFiles, write_json
from distill_run.typed_json import read_object

Status = Literal["running", "completed", "failed", "interrupted", "pruned"]


@dataclass(frozen=True)
class RunStatus:
    """How a run stands; `error` says why it has failed."""

    status: Status
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the run came to its end: it is completed, failed or pruned."""
        return self.status in ("completed", "failed", "pruned")

    def to_json(self) -> dict[str, Any]:
        """The content of status.json."""
        return {"status": self.status} if self.error is None else {"status": self.status, "error": self.error}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The status that status.json holds; raises ValueError where it is none of the known ones."""
        status, error = content.get("status"), content.get("error")
        if not isinstance(status, str) or status not in get_args(Status):
            raise ValueError(f"status.json has the status {status!r}, which is not known")
        return cls(status, None if error is None else str(error))  # type: ignore[arg-type]


def status_after(error: BaseException | None) -> RunStatus:
    """The status of a run that an error has ended; None is none."""
    if error is None:
        return RunStatus("completed")
    if isinstance(error, KeyboardInterrupt):
        return RunStatus("interrupted")
    if isinstance(error, PrunedError):
        return RunStatus("pruned")
    return RunStatus("failed", str(error) or type(error).__name__)


def write_status(run_dir: Path, status: RunStatus) -> None:
    """Write the run's status.json, whole or not at all."""
    write_json(RunFiles(run_dir).status, status.to_json())


def read_status(run_dir: Path) -> RunStatus | None:
    """The run's status; None where status.json is not there. Raises ValueError that says how it is damaged.

    A file of no bytes, or of zeros, is not there: a loss of power leaves such files.
    """
    path = RunFiles(run_dir).status
    with suppress(OSError):
        if not path.exists() or not path.read_bytes().strip(b"\0"):
            return None
    return RunStatus.from_json(read_object(path))


def record_failure(run_dir: Path, error: str, command: str) -> None:
    """Write a run's error and its command to its files, where the report of a sweep looks for them."""
    environment = RunFiles(run_dir).environment
    if not environment.is_file():  # the run failed before it wrote anything
        write_json(environment, {"command": command})
    write_status(run_dir, RunStatus("failed", error))
