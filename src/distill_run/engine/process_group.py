"""Several processes as one group of torch.distributed: see processes.py for what they do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill_run.processes import Processes

T = TypeVar("T")


MONTH = timedelta(days=30)  # another run's lock may be waited for; a connection that ends is noticed at once


def join(meeting_point: str, rank: int, size: int, lost: Callable[[], Exception]) -> "ProcessGroup":
    """The group of so many processes, once all of them have joined at the URL of the meeting point.

    GPUs talk by NCCL. What is decided on the CPU travels by gloo, also beside them, so that no GPU is waited for.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=meeting_point, rank=rank, world_size=size, timeout=MONTH)
    return ProcessGroup(rank, size, lost)


class ProcessGroup(Processes):
    """The default group of torch.distributed; where another process has ended, each method raises what `lost` gives."""

    def __init__(self, rank: int, size: int, lost: Callable[[], Exception]) -> None:
        self.rank, self.size, self.lost = rank, size, lost

    def from_first(self, function: Callable[[], T]) -> T:
        """See Processes."""
        told = [function() if self.is_first else None]
        with self._lost_is_told():
            dist.broadcast_object_list(told, device=torch.device("cpu"))
        return told[0]  # type: ignore[return-value]

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """See Processes."""
        counts = torch.tensor(flags, dtype=torch.int64)  # on the CPU: a GPU need not wait for it
        self._add(counts)
        return tuple(count > 0 for count in counts.tolist())

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """See Processes."""
        size = sizes[self.rank]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[:size] = own[:size]
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._lost_is_told():
            dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def gather_for_loss(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """See Processes."""
        gathered: Tensor = _Gather.apply(own[: sizes[self.rank]], self, sizes)
        return gathered

    def sum(self, own: Tensor) -> Tensor:
        """See Processes."""
        total: Tensor = _Sum.apply(own, self)
        return total

    def begin_sum(self, tensors: Sequence[Tensor]) -> Callable[[], None]:
        """See Processes; all that have the same type travel together."""
        begun = []
        for several in _by_type(tensors):
            flat = torch.cat([each.flatten() for each in several])
            with self._lost_is_told():
                begun.append((dist.all_reduce(flat, async_op=True), flat, several))

        def finish() -> None:
            for work, flat, several in begun:
                with self._lost_is_told():
                    work.wait()
                _spread(flat, several)

        return finish

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """See Processes."""
        for several in _by_type(tensors):
            flat = torch.cat([each.flatten() for each in several])
            with self._lost_is_told():
                dist.broadcast(flat, 0)
            _spread(flat, several)

    def _add(self, own: Tensor) -> None:
        with self._lost_is_told():
            dist.all_reduce(own)

    @contextmanager
    def _lost_is_told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost() from error


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: ProcessGroup, sizes: Sequence[int]) -> Tensor:
        start = sum(sizes[: group.rank])
        ctx.own = slice(start, start + len(own))
        return group.gather(own, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.own], None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _summed(own, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _summed(grad, ctx.group), None


def _summed(own: Tensor, group: ProcessGroup) -> Tensor:
    total = own.clone()
    group.begin_sum([total])()
    return total


def _by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for each in tensors:
        kinds.setdefault((each.dtype, each.device), []).append(each)
    return list(kinds.values())


@torch.no_grad()
def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for part, each in zip(torch.split(flat, [each.numel() for each in tensors]), tensors, strict=True):
        each.copy_(part.view_as(each))
