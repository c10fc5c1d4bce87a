"""Who is told how far a piece of work is that is no training: reading images, hashing files, filling a logit bank."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Listener:
    """Is told what happens. It does nothing: a listener defines the methods that it cares for."""

    def noted(self, text: str) -> None:
        """A line for the record."""

    def worked(self, work: str, done: int, total: int) -> None:
        """So much of a piece of work is done, which `work` names; with `done` == `total` it is over, however it ended.

        Only one piece of work goes on at a time.
        """


NOBODY = Listener()


@contextmanager
def working(listener: Listener, work: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is called with how much of the work is done; after the block the work is over."""
    try:
        yield lambda done: listener.worked(work, min(done, total - 1), total)
    finally:
        listener.worked(work, total, total)
