"""Repairs after a standby was promoted: advance sequences, clear caches, wake the relay."""

import argparse
import sys
from typing import Final

import structlog
from psycopg import errors

from orders.cache.address import target_of
from orders.cache.flush import flush
from orders.database import promotion
from orders.database.statements import DatabaseUnavailable
from orders.settings import CacheSettings, DatabaseSettings, load

# A server of another make, or a missing right. All else may be temporary: a slow statement, a full
# disk, a table in migration.
_CANNOT_TELL: Final = (
    errors.InsufficientPrivilege, errors.UndefinedFunction, errors.FeatureNotSupported,
)  # fmt: skip
_log = structlog.get_logger()


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the options of `orders after-promotion`."""
    verb.add_argument(
        "--skip",
        type=int,
        default=promotion.SKIP,
        help="numbers to skip: more than the old primary can have assigned without replicating"
        " them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do the remaining repairs and print them; a second run changes nothing. Raises OrdersError."""
    database, cache = load(DatabaseSettings), load(CacheSettings)
    if cache.url:
        target_of(cache.url)  # refuse a wrong URL before anything is changed
    result = promotion.follow_up(database, arguments.skip)
    lines = [f"sequence {name}: set to {value}" for name, value in result.sequences.items()]
    if not result.new:
        lines.append(f"timeline {result.timeline}: nothing to do for the sequences")
    lines.append(f"cache: {flush(cache)} orders removed")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


class FollowUp:
    """A leader's repairs after a promotion, tried until they succeed."""

    def __init__(self, database: DatabaseSettings, cache: CacheSettings) -> None:
        self._database, self._cache = database, cache
        self._flush_due = False

    def __call__(self) -> None:
        """Do the repairs unless they are done. Raises Transient and RedisDown: call it again.

        If the server cannot tell whether it was promoted, a person must do them.
        """
        try:
            result = promotion.follow_up(self._database)
        except DatabaseUnavailable as error:
            if not isinstance(error.__cause__, _CANNOT_TELL):
                raise
            _log.warning("promotion.unknown", error=str(error))
            return
        if result.new:
            self._flush_due = True
            _log.warning("promotion.followed_up", timeline=result.timeline)
        if self._flush_due:
            _log.warning("promotion.cache_flushed", orders_forgotten=flush(self._cache))
            self._flush_due = False
