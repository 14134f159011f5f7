"""The named SQL statements, each in a file of its own under `sql/`, and how a connection runs them.

They are prepared and run without psycopg's cursor. A cursor looks up again how to adapt each
parameter and column, and checks each time whether its statement is prepared. That is more than a
third of a page's CPU on this side. Sending, waiting, reading and errors are psycopg's own.
"""

import functools
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Protocol

import psycopg
from psycopg import errors, pq
from psycopg.abc import Transformer as Adapting
from psycopg.adapt import PyFormat, Transformer
from psycopg.generators import execute
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

# psycopg's own bound. One statement counts once for each combination of parameter types.
PREPARED_LIMIT: Final = 100
_PLACE: Final = re.compile(rb"%(?:\((\w+)\)s|%)")
_GOOD: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})

_Key = tuple[bytes, tuple[int, ...] | None]


class Statements(Protocol):
    """What runs named statements: a pool, each by itself, or a transaction."""

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run `sql/<name>.sql` and return its rows."""


@functools.cache
def statement(name: str) -> bytes:
    """Return the text of `sql/<name>.sql`; bytes, because psycopg takes a str only as a literal."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_bytes()


@functools.cache
def numbered(query: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement with PostgreSQL's placeholders, and the names that they stand for."""
    names: list[str] = []

    def place(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            return b"%"
        name = match[1].decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    return _PLACE.sub(place, query), tuple(names)


class Prepared:
    """The named statements of one connection, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any], limit: int = PREPARED_LIMIT) -> None:
        self._connection, self._limit = connection, limit
        self._adapting: dict[bytes, Adapting] = {}
        self._names: dict[_Key, bytes] = {}
        self._count = 0

    def rows(self, query: bytes, params: Mapping[str, Any]) -> list[TupleRow]:
        """Run a statement and return its rows, none if it returns no rows by its nature."""
        text, names = numbered(query)
        adapting = self._adapting.get(query)
        if adapting is None:
            adapting = self._adapting[query] = Transformer(self._connection)
        values = adapting.dump_sequence(
            [params[name] for name in names], [PyFormat.AUTO] * len(names)
        )
        prepared = self._names.get((text, adapting.types))
        if prepared is None:
            prepared = self._prepare((text, adapting.types))
        self._connection.pgconn.send_query_prepared(
            prepared, values, param_formats=adapting.formats, result_format=pq.Format.TEXT
        )
        result = self._result()
        if not result.nfields:
            return []
        adapting.set_pgresult(result)
        try:
            return adapting.load_rows(0, result.ntuples, tuple)
        finally:
            adapting.set_pgresult(None)

    def _prepare(self, key: _Key) -> bytes:
        if len(self._names) >= self._limit:
            oldest = next(iter(self._names))
            self._connection.execute(b"DEALLOCATE " + self._names.pop(oldest))
        self._count += 1
        name = b"orders_%d" % self._count
        text, types = key
        self._connection.pgconn.send_prepare(name, text, param_types=types)
        self._result()
        self._names[key] = name
        return name

    def _result(self) -> PGresult:
        """Wait for the answer. Raises psycopg's errors."""
        results: list[PGresult] = self._connection.wait(execute(self._connection.pgconn))
        for result in results:  # a session that the server ends may say so in two
            if result.status not in _GOOD:
                raise errors.error_from_result(result)
        if not results:
            raise psycopg.InternalError("PostgreSQL gave no result")
        return results[-1]
