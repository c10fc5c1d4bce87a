"""The files of a run directory: the only place that spells their names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFiles:
    """Where the files of a run lie."""

    run_dir: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.run_dir / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, source code, command."""
        return self.run_dir / "environment.json"

    @property
    def metrics(self) -> Path:
        """A line for each epoch of each stage."""
        return self.run_dir / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """How the run stands, or how it ended."""
        return self.run_dir / "status.json"

    @property
    def report(self) -> Path:
        """The figures, for programs."""
        return self.run_dir / "report.json"

    @property
    def last(self) -> Path:
        """What a resume needs."""
        return self.run_dir / "checkpoints" / "last.pt"

    @property
    def student(self) -> Path:
        """The selected student, to ship."""
        return self.run_dir / "checkpoints" / "student.pt"

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.run_dir / "plots"
