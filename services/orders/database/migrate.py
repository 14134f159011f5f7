"""Brings the schema up to date: numbered SQL files, run by yoyo under an advisory lock.

Each change goes in three releases: expand (add what the new code needs, harmless to the old),
deploy, contract (drop what nobody reads any more).
"""

import time
from collections.abc import Callable
from importlib import resources
from typing import Final

import psycopg
import structlog
import yoyo

from orders.database.failures import translated
from orders.errors import Permanent, Transient

_LOCK: Final = 0x6F726465  # "orde": one migration of this database at a time
_log = structlog.get_logger()


def migrate(url: str) -> list[str]:
    """Apply the migrations that are missing and return their names; others may do so too.

    Raises Transient when PostgreSQL is not to be had, Permanent when a migration is refused.
    """
    with translated(), psycopg.connect(url, autocommit=True, connect_timeout=3) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            return _apply(url)
        except psycopg.ProgrammingError as error:
            raise Permanent(f"a migration was refused: {error}", reason="migration") from error


def waiting(attempt: Callable[[], list[str]], patience_s: float) -> list[str]:
    """Repeat `attempt` while the server is not to be had, up to `patience_s` seconds."""
    give_up_at_s = time.monotonic() + patience_s
    while True:
        try:
            return attempt()
        except Transient as error:
            if time.monotonic() > give_up_at_s:
                raise
            _log.warning("migration.waiting", error=str(error))
            time.sleep(1)


def pending(url: str) -> list[str]:
    """Return the names of migrations that are not applied yet."""
    with translated():
        backend = yoyo.get_backend(_yoyo_url(url))
        return [migration.id for migration in backend.to_apply(_migrations())]


def _apply(url: str) -> list[str]:
    backend = yoyo.get_backend(_yoyo_url(url))
    missing = backend.to_apply(_migrations())
    for migration in missing:
        _log.info("migration.started", migration=migration.id)
        # yoyo alone marks it after the commit: whoever dies in between could never migrate again.
        with backend.transaction():
            migration.process_steps(backend, "apply")
            backend.mark_one(migration)
    return [migration.id for migration in missing]


def _migrations() -> "yoyo.migrations.MigrationList":
    return yoyo.read_migrations(str(resources.files(__package__).joinpath("migrations")))


def _yoyo_url(url: str) -> str:
    """Return the URL in yoyo's form, with a bound on waiting for locks.

    An ALTER TABLE that waits behind a long reader makes all traffic wait behind it.
    """
    rest = url.partition("://")[2]
    separator = "&" if "?" in rest else "?"
    return f"postgresql+psycopg://{rest}{separator}options=-c%20lock_timeout%3D1000"
