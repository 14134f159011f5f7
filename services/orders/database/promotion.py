"""The effects of a promotion on PostgreSQL, and their repair.

With asynchronous replication the last commits of the old primary may be missing. The ids that they
issued are known outside: in answers, caches and other services. Sequences that went back would
issue the same ids to other orders.
"""

from contextlib import closing
from typing import Final

import msgspec

from orders.database.connection import READ_ONLY, connect, sessions
from orders.database.statements import statement, translated
from orders.errors import OrdersError, Transient
from orders.settings import DatabaseSettings

# More than the old primary can have assigned unseen: a thousand orders a second for a quarter of
# an hour. An id may have 16 digits, so this can be done nine billion times.
SKIP: Final = 1_000_000


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
        [(system, timeline)] = session.execute(statement("find_timeline")).fetchall()
        arguments = {"system": str(system), "timeline": timeline, "skip": skip}
        first = timeline == 1  # as initdb made it
        if first or not session.execute(statement("record_promotion"), arguments).fetchall():
            return Promotion(timeline, {})
        advanced = session.execute(statement("advance_sequences"), {"skip": skip})
        sequences: dict[str, int] = dict(advanced.fetchall())
        # Whether the relay asked to be woken may be among the lost commits.
        session.execute(statement("set_relay_idle"), {"idle": True})
        return Promotion(timeline, sequences)
