"""One process among several: the holder of a PostgreSQL advisory lock does the work."""

from typing import Final

import structlog

from orders.database.connection import SESSION, SILENCE_S, Connection, connect, sessions
from orders.database.statements import statement, translated
from orders.settings import DatabaseSettings

RELAY: Final = 0x72656C61  # "rela"
HOUSEKEEPING: Final = 0x686F7573  # "hous"
RECONCILIATION: Final = 0x7265636F  # "reco"
_GRACE_S: Final = 2
_log = structlog.get_logger()


def lead(session: Connection, lock: int, silence_s: int = SILENCE_S) -> bool:
    """Try to take a lock, which lasts until the session ends; end the session of a frozen holder.

    It does not wait in the server, because a waiting statement holds back the clean-up of every
    table. Raises psycopg's errors.
    """
    row = session.execute(statement("take_lock"), {"lock": lock}).fetchone()
    if row and row[0]:
        return True
    arguments = {"lock": lock, "silence_s": silence_s + _GRACE_S}
    for _ in session.execute(statement("end_silent_leader"), arguments):
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
        """Close the session, which releases the lock."""
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
