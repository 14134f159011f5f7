"""One process among several: the holder of a PostgreSQL advisory lock does the work."""

from typing import Final

import structlog

from orders.database.connection import SESSION, SILENCE_S, Connection, connect, sessions
from orders.database.statements import translated
from orders.settings import DatabaseSettings

RELAY: Final = 0x72656C61  # "rela"
HOUSEKEEPING: Final = 0x686F7573  # "hous"
RECONCILIATION: Final = 0x7265636F  # "reco"
_log = structlog.get_logger()


# `query_start` and `state_change` are times of the server's clock. A process may end the sessions
# of its own role. This is for sessions that idle_session_timeout does not end, because they are not
# idle: their clients do not read their answers.
_LEAD: Final = "SELECT pg_try_advisory_lock(%s)"
_END_SILENT: Final = """
    SELECT pg_terminate_backend(pid)
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND objid::bigint = %s
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND greatest(query_start, state_change) < clock_timestamp() - make_interval(secs => %s)
"""
_GRACE_S: Final = 2


def lead(session: Connection, lock: int, silence_s: int = SILENCE_S) -> bool:
    """Try to take a lock until the session ends; end the session of a holder that is frozen.

    Trying again and again instead of waiting in the server: a statement that waits holds back the
    clean-up of every table. Raises psycopg's errors.
    """
    row = session.execute(_LEAD, (lock,)).fetchone()
    if row and row[0]:
        return True
    for _ in session.execute(_END_SILENT, (lock, silence_s + _GRACE_S)):
        _log.warning("leadership.silent_leader_ended")
    return False


class Leadership:
    """A session that holds, or asks for, one advisory lock; the lock ends with the session.

    Ask at least every few seconds: a session that is silent for `silence_s` loses the lock.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        lock: int,
        application: str,
        *,
        silence_s: int = SILENCE_S,
    ) -> None:
        self._server, self._settings, self._silence_s = sessions(settings), settings, silence_s
        self._lock, self._application = lock, application
        self._session: Connection | None = None
        self._held = False
        self.term = 0  # how often this process became leader

    def held(self) -> bool:
        """Return whether this process leads, trying to become leader if it does not.

        Costs one round trip. Raises Transient if PostgreSQL is unavailable; leadership is then
        lost.
        """
        try:
            with translated():
                self._ask()
        except BaseException:
            self.close()
            raise
        return self._held

    def close(self) -> None:
        """Release the lock."""
        session, self._session, self._held = self._session, None, False
        if session is not None:
            session.close()

    def _ask(self) -> None:
        if self._session is None:
            session = {**SESSION, "idle_session_timeout": f"{self._silence_s}s"}
            self._session = connect(self._server, self._settings, self._application, session)
        if self._held:
            self._session.execute(b"SELECT 1")
            return
        self._held = lead(self._session, self._lock, self._silence_s)
        self.term += self._held
