"""The names of the files of a run, which are spelled here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFiles:
    """Where the files of the run in `run_dir` lie, whether they are there or not."""

    run_dir: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.run_dir / "config.yaml"

    @property
    def environment(self) -> Path:
        """The versions, the machine, the source code and the command."""
        return self.run_dir / "environment.json"

    @property
    def metrics(self) -> Path:
        """A line of figures for each epoch."""
        return self.run_dir / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """How the run stands; see RunStatus."""
        return self.run_dir / "status.json"

    @property
    def report(self) -> Path:
        """What the run found out, for programs."""
        return self.run_dir / "report.json"

    @property
    def last(self) -> Path:
        """The checkpoint from which the run can go on."""
        return self.run_dir / "checkpoints" / "last.pt"

    @property
    def student(self) -> Path:
        """The selected student with all that is needed to use it."""
        return self.run_dir / "checkpoints" / "student.pt"

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.run_dir / "plots"

    @property
    def log(self) -> Path:
        """What the run said, and more."""
        return self.run_dir / "run.log"
