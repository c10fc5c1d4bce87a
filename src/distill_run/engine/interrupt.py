"""Ctrl-C, SIGTERM and SIGUSR1: a training ends at a step boundary, anything else at once."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Self

from distill_run.errors import Interrupted

HANDED_ON = getattr(signal, "SIGUSR2", signal.SIGTERM)  # how a sweep's process asks those of its points
# SLURM sends USR1 for --signal=USR1@120; Windows has neither of the last two.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)
PARENT_SECONDS = 1.0  # between two looks whether the parent process is there
GRACE_SECONDS = 60.0  # that a process has to end its step and save its state before it may be killed


def _nothing() -> None:
    pass


class StopRequest:
    """Catches these signals for the time of its `with` block.

    While a training polls `requested`, the first signal only asks it to stop; the same signal again, and any signal
    outside a training, raises Interrupted where the program stands. Another signal says the same as the first one: a
    sweep hands on what its processes may have received themselves. `on_first` is called at the first signal. Signals
    are left alone outside the main thread, where Python cannot catch them. A request that `only_notes` raises nothing:
    it is that of a process which stops together with others.
    """

    def __init__(self, on_first: Callable[[], None] = _nothing, *, only_notes: bool = False) -> None:
        self.only_notes = only_notes
        self.requested = False
        self.error: BaseException = Interrupted()
        self._on_first = on_first
        self._is_polled = False
        self._received: set[int] = set()

    def request(self, error: BaseException) -> None:
        """Ask the training in progress to stop; it raises `error` at its next step or at the end of its epoch."""
        self.requested, self.error = True, error

    def __enter__(self) -> Self:
        self._is_main = threading.current_thread() is threading.main_thread()
        self._process = os.getpid()
        if self._is_main:
            self._previous = [signal.signal(number, self._receive) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            for number, handler in zip(SIGNALS, self._previous, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Within the block somebody looks at `requested` after each step."""
        self._is_polled = True
        try:
            yield
        finally:
            self._is_polled = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, which stands in one of `polled`, nobody looks for long: a signal raises where it arrives.

        So does one that arrived since the last look.
        """
        if self.requested and not self.only_notes:
            raise self.error
        was_polled, self._is_polled = self._is_polled, False
        try:
            yield
        finally:
            self._is_polled = was_polled

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if os.getpid() != self._process:
            return  # a copy of the process, which has just begun: it will decide itself what it does about signals
        is_first, is_repeated = not self._received, number in self._received
        self._received.add(number)
        self.request(Interrupted(signal.Signals(number).name))
        if is_first:
            self._on_first()
        if not self.only_notes and (is_repeated or not self._is_polled):
            raise self.error  # in a finaliser Python ignores it: then the next training sees the request


def ask_children() -> bool:
    """Ask the processes that this one has started to stop; whether there are any."""
    children = multiprocessing.active_children()
    for child in children:
        assert child.pid is not None
        os.kill(child.pid, HANDED_ON)
    return bool(children)


def end_with_parent() -> None:
    """Let a process of a sweep stop when the sweep's own has ended: the same command may be at work there again.

    Does nothing in the sweep's own process. Raises Interrupted where that has ended already.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    if os.getppid() != parent.pid:
        raise Interrupted
    _watch(parent.pid)


@cache  # one thread in each process
def _watch(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), HANDED_ON)
        time.sleep(GRACE_SECONDS)
        os._exit(1)  # nobody will give it other work

    threading.Thread(target=watch, daemon=True).start()
