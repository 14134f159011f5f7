"""The named SQL statements: each in a file of its own under `sql/`."""

import functools
from importlib import resources


@functools.cache
def statement(name: str) -> bytes:
    """Return the text of `sql/<name>.sql`; bytes, because psycopg takes a str only as a literal."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_bytes()
