"""A run that has ended, opened again: its settings, its data and its networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from distill_run import checkpoint
from distill_run.build import Builder
from distill_run.config.resume import saved_settings
from distill_run.config.schema import Settings
from distill_run.data.feed import Feed
from distill_run.data.opening import Feeds
from distill_run.data.source import ImageFacts
from distill_run.errors import UserError, user_error
from distill_run.files import RunFiles
from distill_run.listener import NOBODY, Listener
from distill_run.models.network import Network
from distill_run.record.command import resume_command
from distill_run.report.run_report import RunReport, read_report
from distill_run.stages.given_teacher import GivenTeachers
from distill_run.stages.plans import teacher_files, untrained_teachers
from distill_run.stages.prepare import builder_of, published_crop
from distill_run.store import Store
from distill_run.tensor_files import load


@dataclass(frozen=True)
class PastRun:
    """A completed run, read from its directory. Paths in its settings are relative to the folder it was started in."""

    run_dir: Path
    settings: Settings
    report: RunReport

    @classmethod
    def read(cls, run_dir: Path, code_dir: Path | None = None, *, trusts: bool = False) -> Self:
        """The run in a directory; raises UserError where it is not completed, or names code that is not trusted.

        The code of `code_dir` is; with `trusts`, all that the run names.
        """
        files = RunFiles(run_dir)
        try:
            report = read_report(run_dir)
            return cls(run_dir, saved_settings(files.config, code_dir, trusts=trusts), report)
        except UserError:
            raise
        except (ValueError, OSError) as error:
            raise user_error(
                f"{run_dir} holds no completed run: {error}",
                f"let it end, as in {resume_command(run_dir)}, or give the file of a network",
            ) from error

    @property
    def builder(self) -> Builder:
        """What builds the components of the run, those of its own code among them."""
        return builder_of(self.settings)

    def open_feed(self, device: torch.device, listener: Listener = NOBODY) -> Feed:
        """The images of the run, read again from where they were."""
        settings = self.settings
        store = Store(Path(settings.store_dir), listener)
        return Feeds().open(settings.dataset, self.builder, device, store, published_crop(settings)).feed

    def baseline(self) -> Network | None:
        """The baseline of the shipped student, in eval mode on the CPU; None where the run has none.

        Raises UserError where the store does not hold it any more.
        """
        if self.report.baseline is None:
            return None
        return self._load_entry("baseline", self.report.baseline.fingerprint)

    def teacher(self, images: ImageFacts) -> Network:
        """The run's one teacher, in eval mode on the CPU; raises UserError where it cannot be had any more.

        A teacher that was given as a file is fitted to the `images`: the run's feed, or its student, which needs no
        data.
        """
        files, untrained = teacher_files(self.settings), untrained_teachers(self.settings)
        given = GivenTeachers(self.settings, images, self.builder)
        if len(files) + len(untrained) > 1 or self.report.teacher.origin.startswith("averaged"):
            raise user_error(
                f"{self.run_dir} has several teachers, which have no network of their own",
                "name one of them, as in --teacher outputs/store/teacher/FINGERPRINT/weights.pt",
            )
        if files:
            return given.load(*files[0]).network.eval()
        if untrained:
            return given.untrained(*untrained[0]).network.eval()
        return self._load_entry("teacher", self.report.teacher.fingerprint)

    def _load_entry(self, kind: str, fingerprint: str) -> Network:
        path = Path(self.settings.store_dir) / kind / fingerprint / "weights.pt"
        if not path.is_file():
            raise user_error(
                f"the {kind} of {self.run_dir} is not in the store: {path} does not exist",
                "start from the folder in which the run was started; or repeat the run, which trains it again",
            )
        return self._load(path)

    def _load(self, path: Path) -> Network:
        return checkpoint.rebuild(load(path), self.builder).eval()
