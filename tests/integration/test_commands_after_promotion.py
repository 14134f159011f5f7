"""The commands with a URL of two hosts, the first of which is frozen and was replaced."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.pair import Pair, pair
from orders import cli

ANSWERS = {
    "stuck": "no order needs a person",
    "trace 1": "the database has no such order",
    "notifications list": "LAST ERROR",
}


@pytest.fixture(scope="module")
def promoted(state: Path) -> Iterator[Pair]:
    with pair(state, "replaced") as servers:
        servers.primary.pause()
        servers.promote()
        yield servers


@pytest.mark.parametrize("words", ANSWERS)
def test_a_command_reaches_the_promoted_server_behind_a_frozen_one(
    promoted: Pair,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
) -> None:
    for name, value in {
        "ORDERS_DATABASE_URL": promoted.url,
        "ORDERS_DATABASE_CONNECT_TIMEOUT_S": "1",
        "ORDERS_INVENTORY_URL": "http://127.0.0.1:9",
        "ORDERS_PAYMENT_URL": "http://127.0.0.1:9",
        "ORDERS_UPSTREAM_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    cli.main(words.split())
    output, err = capsys.readouterr()
    assert ANSWERS[words] in output + err
