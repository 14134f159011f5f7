"""One process among several: whoever holds a PostgreSQL advisory lock does the work."""

from typing import Final

from orders.database.connection import SESSION, Connection, Server, connect
from orders.database.failures import translated
from orders.settings import DatabaseSettings

RELAY: Final = 0x72656C61  # "rela"
HOUSEKEEPING: Final = 0x686F7573  # "hous"
RECONCILIATION: Final = 0x7265636F  # "reco"


class Leadership:
    """A session that holds, or asks for, one advisory lock; the lock ends with the session."""

    def __init__(self, url: str, settings: DatabaseSettings, lock: int, application: str) -> None:
        self._server, self._settings = Server(url), settings
        self._lock, self._application = lock, application
        self._session: Connection | None = None
        self._held = False

    def held(self) -> bool:
        """Tell whether this process leads, trying to become leader if it does not.

        Costs one round trip. Raises Transient when PostgreSQL is not to be had; leadership is lost.
        """
        try:
            with translated():
                self._ask()
        except BaseException:
            self.close()
            raise
        return self._held

    def close(self) -> None:
        """Give the lock up."""
        session, self._session, self._held = self._session, None, False
        if session is not None:
            session.close()

    def _ask(self) -> None:
        if self._session is None:
            self._session = connect(self._server, self._settings, self._application, SESSION)
        if self._held:
            self._session.execute(b"SELECT 1")
            return
        row = self._session.execute("SELECT pg_try_advisory_lock(%s)", (self._lock,)).fetchone()
        self._held = bool(row and row[0])
