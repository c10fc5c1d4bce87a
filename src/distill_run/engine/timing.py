"""How long calls take: timed in turn, told as quartiles. No torch: reports hold these figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter

Call = Callable[[], object]

BATCH_SIZE = 64
ROUNDS = 5  # in which the calls take turns: whatever else a machine does then hits all of them alike
FEWEST, ENOUGH, MOST = 3, 10, 100  # repetitions
USUAL_SECONDS, MOST_SECONDS = 0.04, 1.0  # for all repetitions of a call


@dataclass(frozen=True)
class Quartiles:
    """The quartiles of the seconds that a call takes, over its repetitions."""

    repetitions: int
    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class Inference:
    """What a batch of images costs a network: quartiles in seconds over the repetitions, and the peak memory.

    `threads` are those of the CPU; None on another device. `memory_bytes` holds the weights and the most that the
    network's outputs take at one time, between its layers and at its end; None where that is not measured.
    """

    device: str
    threads: int | None
    batch_size: int
    repetitions: int
    lower_quartile: float
    median: float
    upper_quartile: float
    memory_bytes: int | None

    @property
    def milliseconds(self) -> tuple[float, float, float]:
        """The quartiles of the time that a batch takes."""
        return 1000 * self.lower_quartile, 1000 * self.median, 1000 * self.upper_quartile

    @property
    def images_per_second(self) -> tuple[float, float, float]:
        """The quartiles of the throughput."""
        size = self.batch_size
        return size / self.upper_quartile, size / self.median, size / self.lower_quartile


def latency_seconds(speed: Sequence[Inference]) -> float | None:
    """The median seconds for one image with one thread of the CPU; None where that is not measured."""
    return next((each.median for each in speed if each.batch_size == 1 and each.threads == 1), None)


def time_in_turn(calls: Sequence[Call]) -> list[Quartiles]:
    """The quartiles of each call's seconds, after a warm-up; a slow call is repeated less often than a fast one."""
    samples = []
    for call in calls:
        call()  # the first call allocates memory and chooses kernels
        samples.append([_timed(call)])
    counts = [affordable_repetitions(first) for [first] in samples]
    for turn in range(ROUNDS):
        for call, count, own in zip(calls, counts, samples, strict=True):
            own += [_timed(call) for _ in range(turn, count - 1, ROUNDS)]
    return [Quartiles(len(own), *quantiles(own, n=4, method="inclusive")) for own in samples]


def affordable_repetitions(seconds: float) -> int:
    """How often a call that takes so long is repeated: ten times if that takes less than a second."""
    wanted = max(ENOUGH, min(MOST, int(USUAL_SECONDS / seconds)))
    return max(FEWEST, min(wanted, int(MOST_SECONDS / seconds)))


def _timed(call: Call) -> float:
    begun = perf_counter()
    call()
    return perf_counter() - begun
