"""Random numbers as a pure function of their address: (seed, stream, task, draw) -> bits, the same on every machine.

Task number i, its augmentation and its dropout masks are the same in every process and after every resume because no
generator state is carried from one task to the next. The generator is SplitMix64 (Steele, Lea and Flood 2014) in
counter mode, in unsigned 64-bit integer arithmetic, which numpy defines to the bit.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)

UInt64Array = NDArray[np.uint64]


_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_ONE = np.uint64(1)


def _mixed(state: UInt64Array) -> UInt64Array:
    state = (state ^ (state >> _SHIFTS[0])) * _MULTIPLIER_1
    state = (state ^ (state >> _SHIFTS[1])) * _MULTIPLIER_2
    return state ^ (state >> _SHIFTS[2])


def bits(key: ArrayLike, counter: ArrayLike) -> UInt64Array:
    """64 random bits for every pair of `key` and `counter` (broadcast against each other), uint64."""
    keys, counters = (np.atleast_1d(part).astype(np.uint64, copy=False) for part in (key, counter))
    return _mixed(keys + (counters + _ONE) * _GOLDEN)


def key(*words: int | str) -> np.uint64:
    """One 64-bit key from a path of integers and names, such as ``key(seed, "train", "augmentation")``."""
    state = np.zeros(1, np.uint64)
    for word in words:
        number = zlib.crc32(word.encode()) + (1 << 40) if isinstance(word, str) else word
        state = bits(_mixed(state), np.asarray([number % (1 << 64)], np.uint64))
    return np.uint64(state[0])


def uniform(key: ArrayLike, counter: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 with 53 random bits; shapes as in `bits`."""
    return (bits(key, counter) >> np.uint64(11)) * 2.0**-53


def below(key: ArrayLike, counter: ArrayLike, bound: ArrayLike) -> NDArray[np.int64]:
    """Uniform integers in [0, bound), int64, bound < 2**32; the deviation from uniform is under 2**-32 * bound."""
    high = bits(key, counter) >> np.uint64(32)
    return ((high * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
