"""Random numbers as pure functions of indices: nothing depends on what was drawn before, or beside."""

from torch import Tensor


class Draws:
    """Independent uniform draws for each sample: the digits of its random bits, taken as a mixed-radix number.

    `indices` (N,) are the samples, `stream` a number of 64 bits. The 62 bits leave a bias below 1e-9 as long as the
    product of all choices is below 2^32; those of a view of 1000 x 1000 pixels are.
    """

    def __init__(self, indices: Tensor, stream: int) -> None:
        self.bits = random_bits(indices, stream)

    def __call__(self, choices: int) -> Tensor:
        """A number of 0..choices-1 for each sample (N,)."""
        drawn = self.bits % choices
        self.bits = self.bits // choices
        return drawn


# SplitMix64 (Steele, Lea and Flood, 2014): a counter-based generator whose output function is a strong hash.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF


def fold(*numbers: int) -> int:
    """One 64-bit number out of several, each of which changes all of its bits."""
    state = 0
    for number in numbers:
        state = (state + number * _GOLDEN + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        state ^= state >> 31
    return state


def random_bits(counters: Tensor, stream: int) -> Tensor:
    """SplitMix64 of int64 counters (N,) in a stream: uniform int64 in 0..2^62 - 1, on the counters' device."""
    state = counters * _signed(_GOLDEN) + _signed(stream)  # int64 arithmetic wraps, as the generator wants
    state = (state ^ _shift(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift(state, 27)) * _signed(_MIX_2)
    return _shift(state ^ _shift(state, 31), 2)


def _shift(state: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's repeats the sign bit."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return number - (1 << 64) if number >> 63 else number
