"""Elementary functions and products whose last digit is the same on every processor.

NumPy computes sin, exp or a power with the widest vectors that a processor has (AVX-512 gives other
last digits than AVX2), and `@` by the BLAS kernel that fits it. Objects that fall, roll and touch
make centimetres out of that digit, so that a seed would give another table elsewhere. What a scene
or its record follows from is computed by these: the C library's functions, element by element, and
sums in one order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def _each(function: Callable[..., float]) -> Callable:
    """The function for a number or for every element of an array."""

    def apply(value: float | np.ndarray, *more: float) -> float | np.ndarray:
        if np.ndim(value) == 0:
            return function(value, *more)
        results = [function(element, *more) for element in np.ravel(value).tolist()]
        return np.array(results).reshape(np.shape(value))

    return apply


sin, cos, exp, power = map(_each, (math.sin, math.cos, math.exp, math.pow))


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The matrix product of (N,K) and (K,M)."""
    return np.einsum("nk,km->nm", first, second)


def norm(vector: np.ndarray) -> float:
    """The Euclidean norm of a vector (K,)."""
    return math.sqrt(sum(x * x for x in vector.tolist()))
