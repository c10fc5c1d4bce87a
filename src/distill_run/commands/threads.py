"""How long the threads of a computation wait actively for each other; it must be decided before torch is loaded."""

import os

SPINS = "10000"  # well below a millisecond, but longer than a tiny network's threads are apart
CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def let_threads_wait() -> None:
    """Let OpenMP's threads spin only shortly at a barrier, unless the user's environment says how long.

    Only GNU's OpenMP, which torch uses on Linux, reads this. By default its threads spin for milliseconds. Where other
    processes want the cores, a thread then spins while the one that it waits for is kept from computing. Measured on 2
    cores, images a second of cnn_small: idle 31,000 (33,000 by default, 5,500 without spinning); beside two busy
    processes 12,500 (7,500, 5,400); beside ten 800 (90, 1,900).
    """
    if not any(name in os.environ for name in CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = SPINS
