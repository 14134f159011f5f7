"""The named SQL statements: each in a file of its own under `sql/`."""

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, Protocol


class Statements(Protocol):
    """What runs named statements: a pool, each by itself, or a transaction."""

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run `sql/<name>.sql` and return its rows."""


@functools.cache
def statement(name: str) -> bytes:
    """Return the text of `sql/<name>.sql`; bytes, because psycopg takes a str only as a literal."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_bytes()
