"""The relay's session: which rows it deletes, what it keeps, where it looks."""

import math
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from integration.handles import Database
from integration.serving import eventually
from orders.database import connection
from orders.database.connection import SESSION, Connection, Server
from orders.relay.outbox import Outbox, Selection
from orders.settings import DatabaseSettings

ROWS = 300_000

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def writer(database: Database) -> Iterator[Session]:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("TRUNCATE outbox")
        yield session


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    settings = DatabaseSettings(url=database.url)
    patient = SESSION | {"idle_session_timeout": "0"}  # a busy machine writes ROWS rows for long
    with closing(connection.connect(Server(database.url), settings, "test", patient)) as session:
        yield session


@pytest.fixture
def outbox(session: Connection) -> Outbox:
    return Outbox(session)


def add(writer: Session, seq: int | None = None) -> None:
    number = f"{seq}" if seq is not None else "DEFAULT"
    writer.execute(
        f"INSERT INTO outbox (seq, aggregateid, type, payload)"
        f" VALUES ({number}, '1', 'order.created.v1', '{{}}')".encode()
    )


def test_a_number_that_was_issued_again_deletes_nothing(writer: Session, outbox: Outbox) -> None:
    """A failover loses the last rows; their numbers go to new ones."""
    add(writer)
    rows = outbox.take(10, Selection())
    writer.execute("DELETE FROM outbox")
    add(writer, rows[0].seq)
    outbox.delete(rows)
    [duplicate] = outbox.take(10, Selection())
    assert (duplicate.seq, duplicate.id != rows[0].id) == (rows[0].seq, True)
    outbox.delete([duplicate])
    assert outbox.take(10, Selection()) == []


def test_notifications_are_not_kept(writer: Session, session: Connection, outbox: Outbox) -> None:
    assert outbox.lead()
    for _ in range(50):
        writer.execute("NOTIFY outbox")
        outbox.backlog()
    assert not session._notifies_backlog
    began_s = time.monotonic()
    outbox.wait(30)
    assert time.monotonic() - began_s < 15, "one came since it last waited"
    outbox.wait(0.2)
    assert time.monotonic() - began_s > 0.2, "and it was told of once"


def test_a_standby_does_not_listen(
    database: Database, writer: Session, outbox: Outbox, session: Connection
) -> None:
    assert outbox.lead()
    settings = DatabaseSettings(url=database.url)
    with closing(connection.connect(Server(database.url), settings, "test", SESSION)) as other:
        assert not Outbox(other).lead()
        assert other.execute("SELECT pg_listening_channels()").fetchall() == []
    assert session.execute("SELECT pg_listening_channels()").fetchall() == [("outbox",)]


def test_rows_that_cannot_be_cleaned_up_do_not_slow_every_look(
    database: Database, writer: Session, outbox: Outbox
) -> None:
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM orders")  # a snapshot that needs what is deleted
        reader.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.commit()
        reader.execute("SELECT count(*) FROM orders")
        writer.execute(
            "INSERT INTO outbox (aggregateid, type, payload)"
            " SELECT i, 'order.created.v1', '{}' FROM generate_series(1, %s) AS i",
            (ROWS,),
        )
        rows = outbox.take(1, Selection())
        writer.execute("DELETE FROM outbox")
        add(writer)
        [last] = outbox.take(1, Selection())
        outbox._floor._passed.clear()
        outbox._floor._passed.append((time.monotonic() - 60, last.seq - 10))
        began_s = time.monotonic()
        whole_s = min(took(outbox, whole_at_s=0.0) for _ in range(10))
        assert outbox._floor._whole_at_s > began_s, "the next looks are short ones"
        short_s = min(took(outbox, whole_at_s=math.inf) for _ in range(10))
        reader.rollback()
    assert rows[0].seq < last.seq
    assert short_s < whole_s / 2


def took(outbox: Outbox, whole_at_s: float) -> float:
    """Return the seconds of a look; from `whole_at_s` on it is one at everything."""
    outbox._floor._whole_at_s = whole_at_s
    began_s = time.monotonic()
    assert len(outbox.take(1, Selection())) == 1
    return time.monotonic() - began_s


def test_what_commits_late_below_the_floor_is_still_taken(
    database: Database, writer: Session, outbox: Outbox
) -> None:
    with psycopg.connect(database.url) as session:
        session.execute(
            "INSERT INTO outbox (aggregateid, type, payload) VALUES ('9', 'order.created.v1', '{}')"
        )
        add(writer)
        rows = outbox.take(10, Selection())
        outbox.delete(rows)
        outbox._floor._passed.clear()
        outbox._floor._passed.append((time.monotonic() - 60, rows[0].seq))
        outbox._floor._whole_at_s = time.monotonic() + 1
        assert outbox.take(10, Selection()) == []
        session.commit()
    assert outbox.take(10, Selection()) == []
    eventually(lambda: len(outbox.take(10, Selection())) == 1)
