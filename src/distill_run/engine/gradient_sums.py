"""The gradients of several processes are added up while the backward pass goes on, as torch's DDP does it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from distill_run.processes import Processes

BUCKET_BYTES = 25 * 2**20  # of gradients that travel together, as in DDP


@contextmanager
def summed_gradients(
    parameters: Sequence[nn.Parameter], means: Iterable[nn.Parameter], processes: Processes
) -> Iterator[None]:
    """In the block, which does a backward pass, the gradients of the parameters become their sums over the processes.

    Those of `means`, which are among the parameters, become their means: each process computes them of all images.
    """
    if processes.size == 1:
        yield
        return
    sums = _Sums([parameter for parameter in parameters if parameter.requires_grad], set(means), processes)
    hooks = [
        parameter.register_post_accumulate_grad_hook(sums.take)  # type: ignore[no-untyped-call]
        for parameter in sums.number
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    sums.finish()


class _Sums:
    """Begins to add up a bucket once each of its parameters has its gradient.

    All processes begin the buckets in the same order. A backward pass gives the last layers their gradients first.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], means: set[nn.Parameter], processes: Processes) -> None:
        self.means = means
        self.processes = processes
        self.buckets = _split(parameters[::-1])
        self.number = {parameter: number for number, bucket in enumerate(self.buckets) for parameter in bucket}
        self.num_missing = [len(bucket) for bucket in self.buckets]
        self.begun: list[Callable[[], None]] = []  # what waits for the sums of each bucket so far

    def take(self, parameter: nn.Parameter) -> None:
        """The gradient of a parameter is there."""
        self.num_missing[self.number[parameter]] -= 1
        while len(self.begun) < len(self.buckets) and self.num_missing[len(self.begun)] == 0:
            self._begin()

    def finish(self) -> None:
        """Add up what is left, where a parameter has no gradient, and wait for all sums."""
        while len(self.begun) < len(self.buckets):
            self._begin()
        for wait in self.begun:
            wait()

    def _begin(self) -> None:
        gradients = []
        for parameter in self.buckets[len(self.begun)]:
            if parameter.grad is not None:
                if parameter in self.means:
                    parameter.grad /= self.processes.size
                gradients.append(parameter.grad)
        self.begun.append(self.processes.begin_sum(gradients))


def _split(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in their order, in buckets that end with the parameter that fills them."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if room <= 0:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(parameter)
        room -= parameter.nbytes
    return buckets
