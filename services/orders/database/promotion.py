"""The effects of a promotion on PostgreSQL, and their repair.

With asynchronous replication the last commits of the old primary may be missing. What it gave out
in them is known outside: ids in answers, caches and other services. Sequences that went back would
give the same numbers to other orders.
"""

from contextlib import closing
from typing import Final

import msgspec

from orders.database.connection import READ_ONLY, connect, sessions
from orders.database.statements import translated
from orders.errors import OrdersError, Transient
from orders.settings import DatabaseSettings

# More than the old primary can have assigned unseen: a thousand orders a second for a quarter of
# an hour. An id may have 16 digits, so this can be done nine billion times.
SKIP: Final = 1_000_000

_WHERE: Final = """
    SELECT
        (SELECT system_identifier FROM pg_control_system())::text,
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
"""
_RECORD: Final = """
    INSERT INTO promotions (system_identifier, timeline, skipped) VALUES (%s, %s, %s)
    ON CONFLICT DO NOTHING RETURNING true
"""
_SET_AHEAD: Final = """
    SELECT
        sequencename,
        setval(format('%%I.%%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + %s)
    FROM pg_sequences
    WHERE schemaname = current_schema() AND data_type = 'bigint'::regtype
    ORDER BY sequencename
"""
# Who notified before may have asked for silence in a commit that is lost, or that is not.
_WAKE: Final = "UPDATE relay_wakeup SET idle = true"


class Promotion(msgspec.Struct, frozen=True):
    """The result: the new positions of the sequences, none if it had been done before."""

    timeline: int
    sequences: dict[str, int]

    @property
    def new(self) -> bool:
        """Whether something was done now."""
        return bool(self.sequences)


def follow_up(settings: DatabaseSettings, skip: int = SKIP) -> Promotion:
    """Set all sequences ahead by `skip`, once for each promotion; safe to call at any time.

    A server that was never promoted is left alone. Raises OrdersError on a standby, Transient if
    PostgreSQL is unavailable.
    """
    server = sessions(settings)
    try:
        session = connect(server, settings, "orders-after-promotion")
    except Transient as error:
        if server.problem == READ_ONLY:
            raise OrdersError(
                "the server accepts no writes: promote it first, then run this again"
            ) from error
        raise
    with closing(session), translated(), session.transaction():
        [(system, timeline)] = session.execute(_WHERE).fetchall()
        first = timeline == 1  # as initdb made it
        if first or not session.execute(_RECORD, (system, timeline, skip)).fetchall():
            return Promotion(timeline, {})
        sequences: dict[str, int] = dict(session.execute(_SET_AHEAD, (skip,)).fetchall())
        session.execute(_WAKE)
        return Promotion(timeline, sequences)
