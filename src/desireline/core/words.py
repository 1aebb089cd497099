"""Figures as a person reads them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in the largest unit that makes it 1 or more.

    >>> duration(5400), duration(3600), duration(12)
    ('1.5 hours', '1 hour', '12 seconds')
    """
    for unit, size in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
        if abs(seconds) >= size:
            return _counted(f"{seconds / size:.1f}".removesuffix(".0"), unit)
    return _counted(f"{seconds:.0f}", "second")


def _counted(number: str, unit: str) -> str:
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"
