"""Databases as the first release left them, to be migrated."""

import contextlib
import uuid
from collections.abc import Iterator
from importlib import resources
from typing import Final

import psycopg
import yoyo

from integration.handles import Postgres

FIRST: Final = "0001_orders"
INSERT_ORDER: Final = (
    b"INSERT INTO orders (user_id, product_id, quantity, total, payment_method, correlation_id,"
    b" traceparent) VALUES (1, 2, 3, 4, 'card', 'c', 't')"
)


@contextlib.contextmanager
def first_release(postgres: Postgres) -> Iterator[str]:
    """Give the URL of an empty database in the schema of the first release."""
    name = f"first_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" OWNER orders'.encode())
    url = postgres.url_of(name)
    backend = yoyo.get_backend(url.replace("postgresql://", "postgresql+psycopg://", 1))
    folder = resources.files("orders.database").joinpath("migrations")
    first = yoyo.read_migrations(str(folder)).filter(lambda migration: migration.id == FIRST)
    backend.apply_migrations(first)
    backend.connection.close()
    yield url
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
