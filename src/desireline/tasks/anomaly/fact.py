"""What is measured of an account to see whether it behaves like people who shop: one definition a measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# what an account may be suspected of, in the contract's words
KINDS: dict[str, str] = {
    "brushing": "fake orders that lift an item or a seller",
    "review": "reviews that no customer wrote",
    "bot": "a script in a person's place",
    "takeover": "an account that somebody else uses now",
    "ring": "accounts that act together",
}


Evidence = Callable[[int, str], list[int]]  # an account and a fact -> ids of events in the log
Form = Literal["count", "share", "ratio", "seconds", "nats"]  # how a measure is written


@dataclass(frozen=True)
class Fact:
    """One measure of an account; its value is a column of the same name, Float64, null where it is not defined.

    kinds  : the suspicions that it speaks for, keys of KINDS; for `ring` no account's measure speaks, but its groups do
    side   : which values speak for them
    words  : the fact in a sentence's part, with `{value}` in it ("{value} orders to one item within an hour")
    form   : how the value is written
    clears : what would show that nothing is wrong
    """

    kinds: tuple[str, ...]
    side: Literal["high", "low", "both"]
    words: str
    form: Form
    clears: str
