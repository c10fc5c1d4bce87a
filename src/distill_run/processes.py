"""The processes that compute one run together: what each of them does, and what they tell each other.

All of them run the same story with the same settings. What can only be decided once, the first one decides. A run of
one process is the usual case; for it, each method does what is left to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # the store knows this module, and its commands load no torch
    from torch import Tensor

T = TypeVar("T")

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what it tells each of its processes


def rank_in_torchrun() -> int | None:
    """The rank of a process that torchrun has started; None for any other."""
    return int(os.environ["RANK"]) if all(name in os.environ for name in TORCHRUN) else None


class Processes:
    """One process without others. engine/process_group.py has the class for several.

    `rank` is the number of this process, from 0 to `size` - 1. All processes must call the methods in the same order.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this process decides, takes locks and writes files."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things this process takes: at least one, so that it need not do without.

        Where there are fewer things than processes, some take the first one too; `gather` leaves out what they make.
        """
        start, end = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(start, end) if end > start else slice(0, 1)

    def share_sizes(self, count: int, chunk_size: int = 1) -> list[int]:
        """How many of `count` rows count for each process, where they share whole chunks of so many rows."""
        num_chunks = -(-count // chunk_size)
        ends = [min(count, chunk_size * (num_chunks * rank // self.size)) for rank in range(self.size + 1)]
        return [end - start for start, end in pairwise(ends)]

    def from_first(self, function: Callable[[], T]) -> T:
        """What `function` returns in the first process, which alone calls it; the result must be picklable."""
        return function()

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is set in any process. This waits for all of them."""
        return flags

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:  # noqa: ARG002
        """The first rows of each process, so many as `sizes` says, in the order of the processes; no gradient."""
        return own

    def gather_for_loss(self, own: Tensor, sizes: Sequence[int]) -> Tensor:  # noqa: ARG002
        """The same for a loss that every process computes from all rows: its gradient goes to the rows of this one."""
        return own

    def sum(self, own: Tensor) -> Tensor:
        """The sum of a tensor over the processes; each of them adds to its gradient."""
        return own

    def begin_sum(self, tensors: Sequence[Tensor]) -> Callable[[], None]:  # noqa: ARG002
        """Begin to replace each tensor by its sum over the processes; what is returned waits until that is done."""
        return lambda: None

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process."""


ALONE = Processes()
