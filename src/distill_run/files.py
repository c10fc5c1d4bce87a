"""Files: how they are written whole or not at all, what a full disk raises, and the names of the files of a run."""

import errno
import glob
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_run.errors import user_error
from distill_run.safe_text import ANY_TEXT

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it is renamed to `path` if the block ends without an error.

    Its bytes are on the disk before it is renamed: a loss of power leaves the old file or the new one. What a process
    that was killed has left of the same file is removed. An OSError of the block names `path`, unless it names another
    file.
    """
    begin = f".{path.name}.{platform.node()}."
    temporary = path.with_name(f"{begin}{os.getpid()}.tmp")
    for other in path.parent.glob(f"{glob.escape(begin)}*.tmp"):
        if not _is_alive(other.name.removeprefix(begin).removesuffix(".tmp")):
            other.unlink(missing_ok=True)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def needing(num_bytes: int) -> Iterator[None]:
    """Let the error of a full disk say how many bytes the block wanted to write."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            error.strerror = f"{error.strerror}; {num_bytes:,} bytes are needed"
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write bytes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with needing(len(content)), atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _is_alive(process: str) -> bool:
    """Whether a process of this machine has that number; another user's counts."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all; bytes in the names of files that are no text are written as they are."""
    write_bytes(path, text.encode(errors=ANY_TEXT))


def write_json(path: Path, value: Any) -> None:
    """Write plain containers as JSON, whole or not at all; a number that is not finite is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object on each line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """What `write_json_lines` wrote; raises OSError or ValueError where it cannot be read."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def size_on_disk(path: Path) -> int:
    """The bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


@contextmanager
def told_of_no_room(key: str, place: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk into a UserError, which names the `key` that chooses the folder.

    The same for everything else that the operating system refuses inside `place`.
    """
    try:
        yield
    except OSError as error:
        file = error.filename if isinstance(error.filename, str) else None
        what = f"{key}={place}: {error.strerror}" + (f" ({file})" if file else "")
        elsewhere = f"choose another folder, as in {key}=/tmp/elsewhere"
        if error.errno in NO_ROOM:
            raise user_error(what, f"make room, as distill-store gc does, or {elsewhere}") from error
        if file is not None and Path(file).absolute().is_relative_to(place.absolute()):
            raise user_error(what, elsewhere) from error
        raise


@dataclass(frozen=True)
class RunFiles:
    """The paths of the files of the run in `run_dir`, whether they exist or not; their names stand nowhere else."""

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
        """Whether the run is running, completed, failed, interrupted or pruned; see RunStatus."""
        return self.run_dir / "status.json"

    @property
    def report(self) -> Path:
        """What the run found out, for programs."""
        return self.run_dir / "report.json"

    @property
    def report_page(self) -> Path:
        """What the run found out, for people: one page that needs no other file."""
        return self.run_dir / "report.html"

    @property
    def report_md(self) -> Path:
        """The same page in Markdown."""
        return self.run_dir / "report.md"

    @property
    def model_card(self) -> Path:
        """What someone must know who is given the student's weights, in Markdown, for a hub of models."""
        return self.run_dir / "model_card.md"

    @property
    def predictions(self) -> Path:
        """What each network says of each test image."""
        return self.run_dir / "predictions.csv"

    @property
    def views(self) -> Path:
        """The picture of augmented training images."""
        return self.plots / "views.png"

    @property
    def errors_page(self) -> Path:
        """The images on which the student is wrong and the teacher right, where distill-predict was asked for them."""
        return self.run_dir / "errors.html"

    @property
    def exports(self) -> Path:
        """The folder of the student in other formats."""
        return self.run_dir / "exports"

    @property
    def last(self) -> Path:
        """The checkpoint from which the run can go on."""
        return self.run_dir / "checkpoints" / "last.pt"

    @property
    def student(self) -> Path:
        """The selected student with all that is needed to use it."""
        return self.run_dir / "checkpoints" / "student.pt"

    @property
    def finished(self) -> Path:
        """The folder of the students that are trained already, while a run with several of them goes on."""
        return self.run_dir / "checkpoints" / "finished"

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.run_dir / "plots"

    @property
    def lock(self) -> Path:
        """Locked while a process of a command does the run."""
        return self.run_dir / ".lock"

    @property
    def log(self) -> Path:
        """What the run said, and more."""
        return self.run_dir / "run.log"
