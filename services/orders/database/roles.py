"""Least privilege in PostgreSQL: the rights of each process's group role in our schema.

The roles are group roles without a login: people make them once, and grant each to the login of its
process. Migrations keep their privileges current, because a new column or table needs new ones.
"""

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import psycopg
import structlog
from psycopg.sql import SQL, Composed, Identifier

from orders.database.connection import Connection
from orders.errors import Permanent

PROCESSES: Final = ("api", "relay", "worker", "notifier", "support", "reader")

_ROLE: Final = re.compile(r"\{(\w+)\}$")
_EXISTING: Final = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
_SCHEMA: Final = "SELECT current_schema()"
# What the roles hold on our own objects: those of others in the schema are not ours to revoke.
_HELD: Final = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname, r.rolname
    FROM pg_class AS c CROSS JOIN pg_roles AS r
    WHERE r.rolname = ANY(%s)
    AND c.relnamespace = current_schema::regnamespace AND pg_has_role(c.relowner, 'USAGE')
    AND (
        EXISTS (SELECT FROM aclexplode(c.relacl) AS x WHERE x.grantee = r.oid)
        OR EXISTS (
            SELECT FROM pg_attribute AS a CROSS JOIN aclexplode(a.attacl) AS x
            WHERE a.attrelid = c.oid AND x.grantee = r.oid
        )
    )
"""
# It writes notifications beside the outbox row of the api or the worker, neither of which may: so
# it runs as its owner. Here, because replacing the function in a migration would undo it.
_DEFINER: Final = (
    "ALTER FUNCTION queue_notification() SECURITY DEFINER SET search_path FROM CURRENT",
    "REVOKE ALL ON FUNCTION queue_notification() FROM PUBLIC",
)
# Everything that the statements above can change, to see whether they did.
_PRIVILEGES: Final = """
    SELECT c.relname, '', x.grantee, x.privilege_type
    FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS x
    WHERE c.relnamespace = current_schema::regnamespace
    UNION ALL
    SELECT c.relname, a.attname, x.grantee, x.privilege_type
    FROM pg_class AS c
    INNER JOIN pg_attribute AS a ON a.attrelid = c.oid
    CROSS JOIN aclexplode(a.attacl) AS x
    WHERE c.relnamespace = current_schema::regnamespace
    UNION ALL
    SELECT n.nspname, '', x.grantee, x.privilege_type
    FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS x
    WHERE n.nspname = current_schema
    UNION ALL
    SELECT p.proname, concat(p.prosecdef, p.proconfig, p.proacl), 0, ''
    FROM pg_proc AS p
    WHERE p.pronamespace = current_schema::regnamespace
"""

_log = structlog.get_logger()


def grant(session: Connection, prefix: str) -> bool:
    """Give each role exactly what `roles.sql` says; return whether that changed something.

    In one transaction: no session sees a role without its privileges. Nothing is written when
    nothing changes. Raises Permanent when none of the roles exist, psycopg's errors otherwise.
    """
    names = {process: f"{prefix}{process}" for process in PROCESSES}
    existing = {name for (name,) in session.execute(_EXISTING, (list(names.values()),))}
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
        before = _privileges(session)
        for statement in _statements(session, names):
            session.execute(statement)
        if _privileges(session) == before:
            raise psycopg.Rollback(transaction)
        return True
    return False


def _statements(session: Connection, names: dict[str, str]) -> Iterator[SQL | Composed]:
    [(schema,)] = session.execute(_SCHEMA).fetchall()
    identifiers = {key: Identifier(name) for key, name in names.items()}
    identifiers["schema"] = Identifier(schema)
    yield from map(SQL, _DEFINER)
    for kind, held, role in session.execute(_HELD, (list(names.values()),)).fetchall():
        yield SQL("REVOKE ALL ON {} {} FROM {}").format(
            SQL(kind), Identifier(schema, held), Identifier(role)
        )
    for process, text in grants():
        if process in names:
            yield SQL(text).format(**identifiers)


def grants() -> Iterator[tuple[str, str]]:
    """Yield each statement of `roles.sql` with the process whose role it is for."""
    text = resources.files(__package__).joinpath("roles.sql").read_text()
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    for statement in filter(None, map(str.strip, code.split(";"))):
        role = _ROLE.search(statement)
        if role is None:
            raise ValueError(f"roles.sql: no role at the end of {statement!r}")
        yield role[1], statement


def _privileges(session: Connection) -> set[tuple[Any, ...]]:
    return set(session.execute(_PRIVILEGES).fetchall())
