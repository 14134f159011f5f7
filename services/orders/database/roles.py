"""Least privilege in PostgreSQL: the rights of each process's group role in our schema.

The roles are group roles without a login. An administrator creates them once, and grants each to
its process's login. Migrations keep their privileges current, because a new column or table needs
new ones.
"""

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import psycopg
import structlog
from psycopg.sql import SQL, Composed, Identifier

from orders.database.connection import Connection
from orders.database.statements import statement
from orders.errors import Permanent

PROCESSES: Final = ("api", "relay", "worker", "notifier", "support", "reader")

_ROLE: Final = re.compile(r"\{(\w+)\}$")
_log = structlog.get_logger()


def grant(session: Connection, prefix: str) -> bool:
    """Give each role exactly the privileges of `roles.sql`; return whether something changed.

    In one transaction: no session sees a role without its privileges. Nothing is written when
    nothing changes. Raises Permanent when none of the roles exist, psycopg's errors otherwise.
    """
    names = {process: f"{prefix}{process}" for process in PROCESSES}
    arguments = {"roles": list(names.values())}
    existing = {name for (name,) in session.execute(statement("list_roles"), arguments)}
    absent = sorted(set(names.values()) - existing)
    if not existing:
        raise Permanent(
            f"none of the roles {', '.join(absent)} exist: create them,"
            " or correct ORDERS_DATABASE_ROLE_PREFIX",
            reason="roles",
        )
    if absent:
        _log.warning("roles.missing", roles=absent)
    changed = _apply(session, {key: name for key, name in names.items() if name in existing})
    if changed:
        _log.info("roles.granted", roles=sorted(existing))
    return changed


def _apply(session: Connection, names: dict[str, str]) -> bool:
    with session.transaction() as transaction:
        privileges = _privileges(session)
        for name in ("run_queue_notification_as_owner", "close_queue_notification"):
            session.execute(statement(name))
        for change in _changes(session, names):
            session.execute(change)
        if _privileges(session) == privileges:
            raise psycopg.Rollback(transaction)
        return True
    return False


def _changes(session: Connection, names: dict[str, str]) -> Iterator[Composed]:
    [(schema,)] = session.execute(statement("find_schema")).fetchall()
    identifiers = {key: Identifier(name) for key, name in names.items()}
    identifiers["schema"] = Identifier(schema)
    arguments = {"roles": list(names.values())}
    for kind, name, role in session.execute(statement("list_granted_objects"), arguments):
        yield SQL("REVOKE ALL ON {} {} FROM {}").format(
            SQL(kind), Identifier(schema, name), Identifier(role)
        )
    for process, text in grants():
        if process in names:
            yield SQL(text).format(**identifiers)


def grants() -> Iterator[tuple[str, str]]:
    """Yield each statement of `roles.sql` with the process whose role it is for."""
    text = resources.files(__package__).joinpath("roles.sql").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    for grant_text in filter(None, map(str.strip, code.split(";"))):
        role = _ROLE.search(grant_text)
        if role is None:
            raise ValueError(f"roles.sql: no role at the end of {grant_text!r}")
        yield role[1], grant_text


def _privileges(session: Connection) -> set[tuple[Any, ...]]:
    return set(session.execute(statement("list_privileges")).fetchall())
