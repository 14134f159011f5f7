"""After a standby was promoted: sequences ahead, caches empty, the relay awake."""

import argparse
import sys

import structlog

from orders.cache.address import place_of
from orders.cache.client import RedisDown
from orders.cache.flush import flush
from orders.database import promotion
from orders.database.failures import Unwell
from orders.settings import CacheSettings, DatabaseSettings, load

_log = structlog.get_logger()


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the options of `orders after-promotion`."""
    verb.add_argument(
        "--skip",
        type=int,
        default=promotion.SKIP,
        help="numbers to leave out: more than the old primary can have given out unseen",
    )


def run(chosen: argparse.Namespace) -> int:
    """Do what is left to do and say so; a second run changes nothing. Raises OrdersError."""
    database, cache = load(DatabaseSettings), load(CacheSettings)
    if cache.url:
        place_of(cache.url)  # a wrong one is refused before anything is done
    result = promotion.follow_up(database, chosen.skip)
    lines = [f"sequence {name}: set to {value}" for name, value in result.sequences.items()]
    if not result.new:
        lines.append(f"timeline {result.timeline}: nothing to do for the sequences")
    lines.append(f"cache: {flush(cache)} orders forgotten")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def notice(database: DatabaseSettings, cache: CacheSettings) -> None:
    """Follow a promotion up if nobody did. Raises Transient when PostgreSQL is not to be had.

    Where the server cannot tell whether it was promoted, that is left to a person.
    """
    try:
        result = promotion.follow_up(database)
    except Unwell as error:  # a server of another make, or a right that is missing
        _log.warning("promotion.unknown", error=str(error))
        return
    if not result.new:
        return
    try:
        forgotten: int | None = flush(cache)
    except RedisDown:  # what it holds ends within minutes by itself
        forgotten = None
    _log.warning("promotion.followed_up", timeline=result.timeline, orders_forgotten=forgotten)
