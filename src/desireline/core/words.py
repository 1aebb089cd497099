"""Figures as a person reads them."""

from __future__ import annotations

UNITS = (("year", 31_557_600.0), ("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))


def duration(seconds: float) -> str:
    """A duration in the largest unit that makes it 1 or more.

    >>> duration(5400), duration(3600), duration(12), duration(172_800)
    ('1.5 hours', '1 hour', '12 seconds', '2 days')
    """
    unit, size = next(((unit, size) for unit, size in UNITS if abs(seconds) >= size), UNITS[-1])
    number = f"{seconds / size:.1f}".removesuffix(".0")
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"
