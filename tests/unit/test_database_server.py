"""The server that a URL of PostgreSQL leads to."""

import pytest

from orders.database import connection
from orders.database.connection import Server
from orders.errors import SettingError
from orders.settings import DatabaseSettings


def test_the_host_that_answered_last_is_tried_first() -> None:
    server = Server("postgresql://u:secret@a:1,b:2,c:3/orders")
    assert "host=a,b,c" in server.conninfo()
    server.note_attempt()
    server.note_success("b", "2")
    assert "host=b,c,a" in server.conninfo()
    assert "port=2,3,1" in server.conninfo()
    assert "target_session_attrs=read-write" in server.conninfo()


def test_one_port_is_of_all_hosts() -> None:
    server = Server("postgresql:///orders?host=a,b&port=7", writes=False)
    server.note_attempt()
    server.note_success("b", "7")
    assert "host=b,a" in server.conninfo()
    assert "port=7" in server.conninfo()
    assert "target_session_attrs" not in server.conninfo()


def test_no_port_is_the_usual_one() -> None:
    server = Server("postgresql://a:7,b/orders")
    server.note_attempt()
    server.note_success("b", "5432")
    assert "host=b,a port=,7" in server.conninfo()


def test_a_failure_speaks_for_the_server_while_it_is_tried_again() -> None:
    server = Server("postgresql://a/orders")
    assert not server.known_down
    server.note_attempt()
    assert not server.known_down, "nothing is known yet"
    server.note_failure(TimeoutError())
    assert server.known_down
    server.note_attempt()
    server.note_success("a", "5432")
    assert not server.known_down


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"url": "postgresql://u:secret@h/db?no_such=1"}, "ORDERS_DATABASE_URL"),
        (
            {"url": "postgresql://h/db", "session_url": "postgresql://u:secret@h/db?no_such=1"},
            "ORDERS_DATABASE_SESSION_URL",
        ),
    ],
)
def test_what_libpq_cannot_read_is_refused_by_name_and_not_repeated(
    settings: dict[str, str], variable: str
) -> None:
    with pytest.raises(SettingError, match=f"^{variable} is wrong") as error:
        connection.sessions(DatabaseSettings(**settings))  # type: ignore[arg-type]
    assert "secret" not in str(error.value)
    with pytest.raises(SettingError, match="ORDERS_DATABASE_REPLICA_URL is wrong"):
        connection.replica("postgresql://u:secret@h/db?no_such=1")


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("host=a,b&target_session_attrs=standby", "accepts no writes"),
        ("host=a,b&target_session_attrs=prefer-standby", "accepts no writes"),
        ("host=a,b&target_session_attrs=read-only", "accepts no writes"),
        ("host=a,b,c&port=1,2", "the numbers of ports and hosts differ"),
        ("host=a&port=1,2", "the numbers of ports and hosts differ"),
        ("host=a,b&port=1,x", "a port is not a number"),
        ("host=a&port=0", "a port is not a number"),
        ("host=a&port=65536", "a port is not a number"),
    ],
)
def test_hosts_that_cannot_be_used_are_refused_by_name(query: str, fault: str) -> None:
    with pytest.raises(SettingError, match=f"^ORDERS_DATABASE_URL is wrong: .*{fault}") as error:
        Server(f"postgresql://u:secret@/orders?{query}")
    assert "secret" not in str(error.value)


def test_two_hosts_need_no_word_about_writes() -> None:
    """The default of libpq would take a standby."""
    for word in ("", "?target_session_attrs=any", "?target_session_attrs=primary"):
        conninfo = Server(f"postgresql://a,b/orders{word}").conninfo()
        assert "target_session_attrs=read-write" in conninfo
    replica = Server("postgresql://a,b/orders?target_session_attrs=standby", writes=False)
    assert "target_session_attrs=standby" in replica.conninfo()
