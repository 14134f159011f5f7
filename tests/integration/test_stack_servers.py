"""The embedded servers of the stack, which all other integration tests use."""

import time

import psycopg
import psycopg.errors
import pytest

from devstack.servers import postgres as postgres_server
from devstack.servers import rabbitmq as rabbitmq_server
from devstack.servers import valkey as valkey_server
from integration.handles import Database, Postgres, RabbitMQ, Server, Vhost


def test_the_standby_follows_the_primary(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as primary:
        primary.execute("CREATE TABLE seen (id int)")
        primary.execute("INSERT INTO seen VALUES (7)")
    until = time.monotonic() + 5
    while postgres_server.scalar(database.replica_url, "SELECT max(id) FROM seen") != 7:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_standby_refuses_writes(database: Database) -> None:
    with (
        psycopg.connect(database.replica_url, autocommit=True) as replica,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        replica.execute("CREATE TABLE nowhere ()")


def test_the_services_are_not_superusers(database: Database) -> None:
    query = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    assert postgres_server.scalar(database.url, query) is False


def test_postgres_comes_back_after_a_crash_with_what_was_committed(
    postgres: Postgres, database: Database
) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    postgres.kill()
    assert postgres_server.scalar(database.url, "SELECT 1") is None
    postgres.start()
    assert postgres_server.scalar(database.url, "SELECT count(*) FROM kept") == 0


def test_valkey_comes_back_at_the_same_address(valkey: Server) -> None:
    port = int(valkey.url.rpartition(":")[2].partition("/")[0])
    valkey.stop()
    with pytest.raises(OSError, match="refused"):
        valkey_server.pings(port)
    valkey.start()
    assert valkey_server.pings(port)


def test_rabbitmq_comes_back_after_a_crash(rabbitmq: RabbitMQ, vhost: Vhost) -> None:
    rabbitmq.kill()
    rabbitmq.start()
    assert rabbitmq_server.ready(rabbitmq.broker)
