"""Ctrl-C and SIGTERM: a training ends at a step boundary, anything else at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from distill_run.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Catches both signals for the time of its `with` block.

    While a training polls `requested`, the first signal only asks it to stop; a second one, and any signal
    outside a training, raises Interrupted where the program stands. Signals are left alone outside the main
    thread, where Python cannot catch them.
    """

    def __init__(self) -> None:
        self.requested = False
        self.error: BaseException = Interrupted()  # what the training raises when it stops
        self._is_polled = False

    def __enter__(self) -> Self:
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._previous = [signal.signal(number, self._receive) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            for number, handler in zip(SIGNALS, self._previous, strict=True):
                signal.signal(number, handler)

    def request(self, error: BaseException) -> None:
        """Ask the training in progress to stop after this step, and to raise `error`."""
        self.requested = True
        self.error = error

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Within the block somebody looks at `requested` after each step."""
        self._is_polled = True
        try:
            yield
        finally:
            self._is_polled = False

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self.requested or not self._is_polled:
            raise Interrupted(signal.Signals(number).name)
        self.requested = True
