"""If PostgreSQL refuses a set, each order is tried alone; none waits longer than it must."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from integration.api_process import Api, new_user
from integration.crowd import HELD, SLOW, held, install_triggers, one_process, stored
from integration.handles import Database
from orders.api.orders import ACCEPTED


@pytest.fixture(scope="module")
def ready(database: Database) -> Database:
    install_triggers(database)
    return database


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, ready: Database) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("apart")
    with one_process(folder, ready, DATABASE_LOCK_TIMEOUT_S="1") as running_api:
        yield running_api


def test_each_is_answered_when_it_is_settled(api: Api, ready: Database) -> None:
    with held(api, ready) as crowd:
        crowd.hold(SLOW)
        answers = [crowd.post(new_user()) for _ in range(5)]
        slow = crowd.post(new_user(), "slow", productId=SLOW)
        crowd.arrive(*answers, slow)
        crowd.let_go(HELD)
        assert [answer.result(60).status_code for answer in answers] == [202] * 5
        assert not slow.done()
        crowd.let_go(SLOW)
        assert slow.result().status_code == 202


def test_a_key_that_somebody_holds_fails_no_other_key(api: Api, ready: Database) -> None:
    user, others = new_user(), [new_user() for _ in range(5)]
    with psycopg.connect(ready.url) as holder, held(api, ready) as crowd:
        holder.execute(
            b"INSERT INTO idempotency_keys"
            b" (principal, route, key, fingerprint, status, body, location, etag, expires_at)"
            b" VALUES (%s, %s, 'first', '', 202, '', '', '', now() + interval '1 hour')",
            (f"user:{user}", ACCEPTED.route),
        )
        locked = crowd.post(user, "first")
        crowd.arrive(crowd.first, locked)
        answers = [crowd.post(other, "own") for other in others]
        unkeyed = crowd.post(new_user())
        crowd.arrive(crowd.first, locked, *answers, unkeyed)
        crowd.let_go(HELD)
        assert unkeyed.result().status_code == 202
        assert [answer.result().status_code for answer in answers] == [202] * 5
        assert locked.result().status_code == 409
        holder.rollback()
    assert len(stored(ready, [user, *others])) == 5


def test_an_order_whose_turn_does_not_come_in_time_is_refused_unsent(
    tmp_path: Path, ready: Database
) -> None:
    """Two orders with one key come in two sets; the first of them takes the second's time."""
    user = new_user()
    with (
        one_process(tmp_path, ready, DATABASE_STATEMENT_TIMEOUT_S="5") as api,
        held(api, ready) as crowd,
    ):
        holds_up = crowd.post(user, "one", productId=HELD)
        crowd.arrive(crowd.first, holds_up)
        answer = crowd.post(user, "one")
        assert answer.result().status_code == 503
        assert answer.result().headers["Retry-After"] == "1"
        assert "waited too long for its turn" in api.log.read_text()
        assert stored(ready, [user]) == []
        crowd.let_go(HELD)
