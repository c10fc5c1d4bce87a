"""What was worked out from data that stay open, for the next run of the same process."""

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

T = TypeVar("T")

MAX_KEPT = 64  # of every network a handful: figures, pictures of a megabyte, logits of a given teacher


class Kept:
    """The latest results of work on one dataset, by keys that name all else that they depend on.

    The points of a sweep share teacher and baseline: what was predicted with them is asked for by every point.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, object] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of that key; made where it is not there. Nobody may change it."""
        result = cast(T, self._results.pop(key)) if key in self._results else make()
        self._results[key] = result  # the latest stand last
        if len(self._results) > MAX_KEPT:
            del self._results[next(iter(self._results))]
        return result
