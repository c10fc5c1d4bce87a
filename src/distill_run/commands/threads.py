"""How long the threads of a computation wait actively for each other; it must be decided before torch is loaded."""

import os

IDLE_SPINS = "10000"  # some ten microseconds: longer than a tiny network's threads are apart
CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def let_threads_wait() -> None:
    """Choose for how long OpenMP's threads spin at a barrier, unless the user's environment says it.

    By default they spin for milliseconds. Where other processes want the cores, a thread then spins while the one that
    it waits for is kept from computing: trainings become up to forty times slower. On an idle machine, not to spin at
    all costs a tiny network half its speed. So they spin shortly, and not at all where the machine is busy already.
    """
    if not any(name in os.environ for name in CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = "0" if _is_busy() else IDLE_SPINS


def _is_busy() -> bool:
    """Whether other processes took more than half of the cores during the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2
