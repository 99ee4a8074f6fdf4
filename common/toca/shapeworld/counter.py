"""Random numbers that are a pure function of (seed, stream, index): no state, so no batch can change another image."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64 bits in which every bit depends on every bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seed: int, stream: int, indices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape [n, count]; row i depends on (seed, stream, indices[i]) alone.

    Raises ValueError for a negative seed or index, and when an index is not an integer.
    """
    rows = np.asarray(indices)
    if rows.ndim != 1 or (rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0)):
        raise ValueError(f"indices must be a list of non-negative integers, not {indices!r}")
    if operator.index(seed) < 0:
        raise ValueError(f"seed must be a non-negative integer, not {seed}")
    key = _mix(_mix(np.array([seed], np.uint64) + _GOLDEN) + np.uint64(stream))
    state = _mix(key + rows.astype(np.uint64) * _GOLDEN)
    draws = _mix(state[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53
