"""After a standby was promoted: sequences ahead, caches empty, the relay awake."""

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

# A server of another make, or a right that is missing. Anything else may go by: a statement that
# took too long, a full disk, a table that is being migrated.
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
        help="numbers to leave out: more than the old primary can have given out unseen",
    )


def run(chosen: argparse.Namespace) -> int:
    """Do what is left to do and say so; a second run changes nothing. Raises OrdersError."""
    database, cache = load(DatabaseSettings), load(CacheSettings)
    if cache.url:
        target_of(cache.url)  # a wrong one is refused before anything is done
    result = promotion.follow_up(database, chosen.skip)
    lines = [f"sequence {name}: set to {value}" for name, value in result.sequences.items()]
    if not result.new:
        lines.append(f"timeline {result.timeline}: nothing to do for the sequences")
    lines.append(f"cache: {flush(cache)} orders forgotten")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


class FollowUp:
    """What a leader does in its term if a promotion was not followed up; tried until it is done."""

    def __init__(self, database: DatabaseSettings, cache: CacheSettings) -> None:
        self._database, self._cache = database, cache
        self._flush_due = False

    def __call__(self) -> None:
        """Follow a promotion up if nobody did. Raises Transient and RedisDown: call it again.

        Where the server cannot tell whether it was promoted, that is left to a person.
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
