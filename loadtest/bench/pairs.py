"""Paired measurement: contestants in turns, back and forth, and ratios within a round. Pure.

Other load on a machine changes from second to second. It affects two rates that are measured one
after the other almost equally, so their ratio is more reliable than the rates. Every second round
goes backwards, so that a slow drift favours no contestant.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Spread(msgspec.Struct, frozen=True):
    """The median of the rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float


def turns(contestants: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Yield the number of the round and the next contestant: A B C, C B A, and so on."""
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else reversed(contestants):
            yield number, contestant


def spread(values: Sequence[float]) -> Spread:
    """Return median, lowest and highest of the rounds."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(dividends: Sequence[float], divisors: Sequence[float]) -> Spread:
    """Divide round by round, then summarise. Raises ValueError when the rounds do not match."""
    return spread(
        [dividend / divisor for dividend, divisor in zip(dividends, divisors, strict=True)]
    )
