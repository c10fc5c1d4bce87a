"""The same batches for several trainings: each is made once."""

from collections import deque
from collections.abc import Iterator

from torch import Tensor

from distill_run.data.batches import Batch, Batches


class SharedBatches(Batches):
    """Serves the batches of another to several trainings that go on together, and keeps the last `num_kept` of them.

    A batch is a function of epoch and step. So one that is not kept any more, because a training is behind the others,
    is only made again. `close` leaves the batches open: others may still be served.
    """

    def __init__(self, batches: Batches, num_kept: int) -> None:
        self.batches = batches
        self.batch_size, self.seed = batches.batch_size, batches.seed
        self.kept: deque[Batch] = deque(maxlen=num_kept)
        self.rest: Iterator[Batch] = iter(())  # after the last one that was made
        self.following: tuple[int, int] | None = None  # epoch and step of the next of `rest`

    @property
    def num_samples(self) -> int:
        """See Batches."""
        return self.batches.num_samples

    @property
    def num_steps(self) -> int:
        """See Batches."""
        return self.batches.num_steps

    def order(self, epoch: int) -> Tensor:
        """See Batches."""
        return self.batches.order(epoch)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """See Batches."""
        for step in range(first_step, self.num_steps):
            yield self._obtain(epoch, step)

    def _obtain(self, epoch: int, step: int) -> Batch:
        for batch in self.kept:
            if (batch.epoch, batch.step) == (epoch, step):
                return batch
        if self.following != (epoch, step):
            self.rest = self.batches.epoch(epoch, step)
        self.following = epoch, step + 1
        self.kept.append(next(self.rest))
        return self.kept[-1]
