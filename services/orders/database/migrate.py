"""Brings the schema up to date: numbered SQL files, run by yoyo under an advisory lock.

Each change goes in three releases: expand (add what the new code needs, harmless to the old),
deploy, contract (drop what nobody reads any more).
"""

import contextlib
import time
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import psycopg
import structlog
import yoyo

from orders.database.failures import translated
from orders.errors import Permanent, Transient

_LOCK: Final = 0x6F726465  # "orde": one migration of this database at a time
_LOCK_POLL_S: Final = 0.2
# Indexes of ours that a build left behind; names that end so belong to a REINDEX of somebody else.
_INVALID: Final = r"""
SELECT i.indexrelid::regclass::text
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = current_schema::regnamespace
AND c.relname !~ '_cc(new|old)\d*$'
"""
_log = structlog.get_logger()


def migrate(url: str) -> list[str]:
    """Apply the migrations that are missing and return their names; others may do so too.

    Raises Transient when PostgreSQL is not to be had, Permanent when a migration is refused.
    """
    with translated(), psycopg.connect(url, autocommit=True, connect_timeout=3) as guard:
        # Not by a waiting pg_advisory_lock: its snapshot would hold up a concurrent index build of
        # the very migration that it waits for, for ever.
        while guard.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() != (True,):
            time.sleep(_LOCK_POLL_S)
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
        migration.load()
        if migration.use_transactions:
            _apply_whole(backend, migration)
        else:
            _apply_stepwise(backend, migration)
    return [migration.id for migration in missing]


def _apply_whole(backend: Any, migration: Any) -> None:
    # yoyo alone marks it after the commit: whoever dies in between could never migrate again.
    with backend.transaction():
        migration.process_steps(backend, "apply")
        backend.mark_one(migration)


def _apply_stepwise(backend: Any, migration: Any) -> None:
    """Run statements that refuse a transaction (`CREATE INDEX CONCURRENTLY`), then mark them.

    All of them run again after a failure, so each must be repeatable: a build that ends half-way
    leaves an INVALID index, which the file itself drops before it builds.
    """
    # A concurrent build waits for every older transaction, and blocks nobody while it does.
    for limit in ("lock_timeout", "statement_timeout"):
        backend.execute(f"SET {limit} = 0")
    try:
        for step in migration.steps:
            step.apply(backend)
    except psycopg.Error:
        _drop_invalid(backend)
        raise
    for limit in ("lock_timeout", "statement_timeout"):
        backend.execute(f"RESET {limit}")
    with backend.transaction():
        backend.mark_one(migration)


def _drop_invalid(backend: Any) -> None:
    """Remove what failed builds left: writes pay for such an index, and no read can use it."""
    with contextlib.suppress(psycopg.Error):  # the next run drops it, if the server is gone
        for (name,) in backend.execute(_INVALID).fetchall():
            backend.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def _migrations() -> "yoyo.migrations.MigrationList":
    return yoyo.read_migrations(str(resources.files(__package__).joinpath("migrations")))


def _yoyo_url(url: str) -> str:
    """Return the URL in yoyo's form, with a bound on waiting for locks.

    An ALTER TABLE that waits behind a long reader makes all traffic wait behind it.
    """
    rest = url.partition("://")[2]
    separator = "&" if "?" in rest else "?"
    return f"postgresql+psycopg://{rest}{separator}options=-c%20lock_timeout%3D1000"
