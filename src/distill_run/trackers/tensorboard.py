"""The tracker for TensorBoard: an event file in the run's directory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import yaml
from PIL import Image

from distill_run.record.status import RunStatus
from distill_run.stages.watcher import RunFacts
from distill_run.trackers.tracker import Results, Tracker, configuration, flat

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Writes scalars, the configuration as text and as hyper-parameters, and pictures."""

    package = "tensorboard"
    _writer: "SummaryWriter | None" = None

    @property
    def writer(self) -> "SummaryWriter":
        """The writer of the event file."""
        assert self._writer is not None
        return self._writer

    def begin(self, run: RunFacts) -> None:
        """See Tracker. A run that goes on gets a second event file, which TensorBoard shows as one with the first."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.run_dir))
        self._settings = configuration(run)
        text = yaml.safe_dump(self._settings, sort_keys=False)
        self.writer.add_text("configuration", "".join(f"    {line}\n" for line in text.splitlines()))

    def add_epoch(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        for name, value in figures.items():
            self.writer.add_scalar(f"{stage}/{name}", value, epoch)
        self.writer.flush()

    def add_results(self, results: Results) -> None:
        """See Tracker. The hyper-parameters are those that TensorBoard compares: numbers, texts and flags."""
        rule = ["---"] * len(results.columns)
        lines = [f"| {' | '.join(cells)} |" for cells in (results.columns, rule, *results.rows)]
        self.writer.add_text("networks", "\n".join(lines))
        self.writer.add_text("conclusion", results.conclusion)
        for picture in results.pictures:
            with Image.open(picture) as image:
                self.writer.add_image(f"report/{picture.stem}", np.asarray(image.convert("RGB")), dataformats="HWC")
        compared = {k: v for k, v in flat(self._settings, ".").items() if isinstance(v, bool | int | float | str)}
        self.writer.add_hparams(compared, results.figures, run_name=".")

    def end(self, status: RunStatus) -> None:
        """See Tracker."""
        self.writer.add_text("status", status.status)
        self.writer.close()
