"""Generators that pause while others work, and need something of their own around each stretch that they run."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

Y = TypeVar("Y")
S = TypeVar("S")
R = TypeVar("R")

Within = Callable[[], AbstractContextManager[None]]


def in_stretches(inner: Generator[Y, S, R], within: Within) -> Generator[Y, S, R]:
    """The same generator, each stretch of which from one pause to the next runs in such a block of its own.

    A `with` statement around all of it would stay open in the pauses, while others run.
    """
    go_on: Callable[[], Y] = partial(next, inner)
    while True:
        with within():
            try:
                value = go_on()
            except StopIteration as end:
                result: R = end.value
                return result
        try:
            go_on = partial(inner.send, (yield value))
        except BaseException as error:
            go_on = partial(inner.throw, error)
