"""Figures as a person reads them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in the largest unit that makes it 1 or more.

    >>> duration(5400), duration(7200), duration(12)
    ('1.5 hours', '2 hours', '12 seconds')
    """
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} seconds"
