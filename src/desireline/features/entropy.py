"""Entropy that comes out the same in whatever order its counts arrive.

With counts c_i and n = sum c_i the entropy is ln n - (1/n) sum c_i ln c_i = (f(n) - sum f(c_i)) / n, f(c) = c ln c.
Here f is a table of whole numbers, rounded to 2^-32: their sum is exact, and a live count is moved by f(c + 1) - f(c).
The error of an entropy is below 2^-32 nats.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ENTROPY_ONE = 2.0**32
_LONGEST = 1 << 27  # c ln c times 2^32 has to fit 63 bits

_table: NDArray[np.int64] = np.zeros(2, dtype=np.int64)


def c_log_c(longest: int) -> NDArray[np.int64]:
    """int64 [>= longest + 1]: f(c) = c ln c in units of 2^-32 for c = 0 to `longest`; do not write to it.

    Examples
    --------
    >>> f = c_log_c(3)
    >>> float(round((f[3] - f[2] - f[1]) / 3 / ENTROPY_ONE, 6))  # counts 2 and 1: ln 3 - 2/3 ln 2
    0.636514
    """
    global _table
    if longest > _LONGEST:
        raise OverflowError(f"counts above {_LONGEST} do not fit the table of entropies")
    if longest >= len(_table):
        size = min(_LONGEST, max(longest, 2 * len(_table))) + 1
        # math.log, not numpy's: that one may differ in the last bit between processors
        grown = (round(c * math.log(c) * ENTROPY_ONE) for c in range(len(_table), size))
        _table = np.concatenate([_table, np.fromiter(grown, np.int64)])
    return _table
