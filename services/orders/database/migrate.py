"""Brings the schema up to date: numbered SQL files, run by yoyo under an advisory lock.

Each change goes in three releases: expand (add what the new code needs, harmless to the old),
deploy, contract (drop what no release reads any more).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Final

import psycopg
import structlog
import yoyo
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from orders.database import roles
from orders.database.connection import Connection, Server, connect, sessions
from orders.database.statements import statement, translated
from orders.errors import Permanent, Transient
from orders.settings import DatabaseSettings

_LOCK: Final = 0x6F726465  # "orde": one migration of this database at a time
_TABLE: Final = "_yoyo_migration"  # yoyo's default
_ASK_S: Final = 0.5
# A statement may take any time. But an ALTER TABLE that waits for a long reader makes all traffic
# wait, which fails after a second. So it gives up much sooner.
_SESSION: Final = {
    "statement_timeout": "0",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
}
_LOCKED_S: Final = 60.0  # a reader that lasts longer has to be ended by a person
_DEADLINE_S: Final = 86_400.0
_LOOK_S: Final = 5.0
_UNWELL_S: Final = 30.0
_log = structlog.get_logger()


def migrate(database: DatabaseSettings | str) -> list[str]:
    """Apply the missing migrations and return their names. Safe to run several at once.

    Then it updates the privileges of the processes' roles, if there are any.
    Raises Transient if PostgreSQL is unavailable, Permanent if a migration is refused.
    """
    settings = DatabaseSettings(url=database) if isinstance(database, str) else database
    with _session(settings) as session, translated():
        _lock(session)
        try:
            applied = _apply(session)
            if settings.role_prefix is not None:
                roles.grant(session, settings.role_prefix)
        except psycopg.ProgrammingError as error:
            raise Permanent(f"a migration was refused: {error}", reason="migration") from error
        return applied


def waiting(attempt: Callable[[], list[str]], patience_s: float) -> list[str]:
    """Repeat `attempt` while the server is unavailable, up to `patience_s` seconds."""
    give_up_at_s = time.monotonic() + patience_s
    while True:
        try:
            return attempt()
        except Transient as error:
            if time.monotonic() > give_up_at_s:
                raise
            _log.warning("migration.waiting", error=str(error))
            time.sleep(1)


def pending(database: DatabaseSettings | str) -> list[str]:
    """Return the names of migrations that are not applied yet."""
    settings = DatabaseSettings(url=database) if isinstance(database, str) else database
    with _session(settings) as session, translated():
        return [migration.id for migration in _backend(session).to_apply(_migrations())]


@contextlib.contextmanager
def _session(settings: DatabaseSettings) -> Iterator[Connection]:
    """Open the one session that locks and migrates; a server that freezes ends it."""
    server = sessions(settings)
    with contextlib.closing(connect(server, settings, "orders-migrate", _SESSION)) as session:
        session.deadline_s = _DEADLINE_S
        watchdog = Watchdog(session, server, settings)
        watchdog.start()
        try:
            yield session
        finally:
            watchdog.stop()


def _lock(session: Connection) -> None:
    """Wait until no other migration runs.

    It polls. A waiting statement would hold a snapshot, and a concurrent index build of the
    migration that it waits for would wait for the end of that snapshot.
    """
    while True:
        row = session.execute(statement("take_lock"), {"lock": _LOCK}).fetchone()
        if row and row[0]:
            return
        time.sleep(_ASK_S)


def _apply(session: Connection) -> list[str]:
    backend = _backend(session)
    pending = backend.to_apply(_migrations())
    for migration in pending:
        _log.info("migration.started", migration=migration.id)
        migration.load()
        if migration.use_transactions:
            # yoyo marks it only after the commit: a crash in between would block all later
            # migrations.
            with backend.transaction():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration)
        else:
            _apply_stepwise(backend, migration)
    return [migration.id for migration in pending]


def _apply_stepwise(backend: "_Backend", migration: yoyo.migrations.Migration) -> None:
    """Run statements that refuse a transaction (`CREATE INDEX CONCURRENTLY`), then mark them.

    All of them run again after a failure, so each must be repeatable: a build that ends half-way
    leaves an INVALID index, which the file itself drops before it builds. Statements that lock a
    table are here, too: in one transaction they would keep every lock to the end.
    """
    # A concurrent build waits for every older transaction, and blocks no session meanwhile. A file
    # with statements that do block others begins with RESET lock_timeout.
    backend.execute("SET lock_timeout = 0")
    try:
        # Not yoyo's process_steps: after a failure it would undo the steps before.
        for step in migration.steps:
            _apply_step(backend, step)
    except psycopg.Error:
        _drop_invalid(backend)
        raise
    backend.execute("RESET lock_timeout")
    with backend.transaction():
        backend.mark_one(migration)


def _apply_step(backend: "_Backend", step: "yoyo.migrations.StepBase") -> None:
    """Run a statement; while others hold its lock, release the queue and try again."""
    give_up_at_s = time.monotonic() + _LOCKED_S
    while True:
        try:
            step.apply(backend)
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > give_up_at_s:
                raise
            _log.warning("migration.table_is_locked")
            time.sleep(_ASK_S)
        else:
            return


def _drop_invalid(backend: "_Backend") -> None:
    """Drop invalid indexes of failed builds: they slow writes, and no read can use them."""
    with contextlib.suppress(psycopg.Error):  # the next run drops it, if the server is gone
        for (name,) in backend.execute(statement("list_invalid_indexes")).fetchall():
            backend.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo ships no types
    """yoyo's backend over our session, which has several hosts, pinned settings and the lock."""

    def __init__(self, session: Connection) -> None:
        self._session = session
        super().__init__(yoyo.connections.parse_uri("postgresql+psycopg:///"), _TABLE)

    def connect(self, _uri: object) -> Connection:
        return self._session


def _backend(session: Connection) -> _Backend:
    backend = _Backend(session)
    backend.init_database()
    return backend


class Watchdog:
    """Ends the session if its server does not answer another connection either.

    A migration may take hours, so its statements have no deadline.
    """

    def __init__(
        self,
        session: Connection,
        server: Server,
        settings: DatabaseSettings,
        *,
        unwell_s: float = _UNWELL_S,
    ) -> None:
        self._session, self._server, self._settings = session, server, settings
        self._unwell_s = unwell_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start to check the server; from now on the session may be ended."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the checks and wait for their thread."""
        self._stopping.set()
        self._thread.join(_LOOK_S)

    def _watch(self) -> None:
        well_s = time.monotonic()
        while not self._stopping.wait(_LOOK_S):
            if self._answers():
                well_s = time.monotonic()
            elif time.monotonic() - well_s > self._unwell_s:
                _log.error("migration.server_does_not_answer", for_s=self._unwell_s)
                self._session.cut()
                return

    def _answers(self) -> bool:
        try:
            connect(self._server, self._settings, "orders-migrate-watchdog").close()
        except Transient:
            return False
        return True


def _migrations() -> "yoyo.migrations.MigrationList":
    return yoyo.read_migrations(str(resources.files(__package__).joinpath("migrations")))
