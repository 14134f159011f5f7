"""The verdict on a message whose handling failed."""

import datetime as dt

import pytest
from pika import BasicProperties

from orders.database.statements import Busy
from orders.errors import Permanent, Transient, Unavailable
from orders.messaging import verdict
from orders.messaging.envelope import Delivery
from orders.messaging.verdict import Dead, Retry, RetryPolicy
from orderservice_topology.topology import RETRY_TIERS

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
POLICY = RetryPolicy(8)
SHORT, MIDDLE, LONG = RETRY_TIERS


def dead_letter(headers: dict[str, object] | None = None) -> Delivery:
    properties = BasicProperties(
        message_id="m", type="t", correlation_id="c", content_type="application/json",
        headers={"traceparent": "00-1-2-01", **(headers or {})}, delivery_mode=1,
        expiration="1000", user_id="somebody", reply_to="q", timestamp=5, app_id="orders",
    )  # fmt: skip
    return Delivery("order-processing", "orders", "t", properties, b"body")


def test_tries_walk_through_the_tiers_from_short_to_long() -> None:
    assert [POLICY.tier(number) for number in range(1, 8)] == [
        SHORT, SHORT, SHORT, MIDDLE, MIDDLE, LONG, LONG,
    ]  # fmt: skip


@pytest.mark.parametrize("tries", [1, 2, 3, 100])
def test_any_number_of_tries_stays_within_the_tiers(tries: int) -> None:
    policy = RetryPolicy(tries)
    tiers = [RETRY_TIERS.index(policy.tier(attempt)) for attempt in range(1, tries + 1)]
    assert tiers == sorted(tiers)


def test_a_longer_wait_is_taken_when_the_error_asks_for_it() -> None:
    assert POLICY.tier(1, at_least_s=5) is SHORT
    assert POLICY.tier(1, at_least_s=6) is MIDDLE
    assert POLICY.tier(1, at_least_s=7200) is LONG
    assert POLICY.tier(7, at_least_s=1) is LONG


def test_a_transient_error_is_tried_again() -> None:
    decided = verdict.judge(Transient("no answer", retry_after_s=20), 1, POLICY)
    assert decided == Retry(MIDDLE, "transient", "Transient: no answer")
    assert verdict.judge(Busy("row locked"), 1, POLICY) == Retry(SHORT, "busy", "Busy: row locked")


def test_the_last_try_is_the_last() -> None:
    assert isinstance(verdict.judge(Transient("x"), 7, POLICY), Retry)
    assert verdict.judge(Transient("x"), 8, POLICY) == Dead("attempts_exhausted", "Transient: x")


def test_a_permanent_error_is_final_at_once() -> None:
    decided = verdict.judge(Permanent("no such order", reason="unknown_order"), 1, POLICY)
    assert decided == Dead("unknown_order", "Permanent: no such order")


def test_an_error_nobody_foresaw_is_tried_again_and_its_text_is_kept_back() -> None:
    decided = verdict.judge(ValueError("card 4111 1111"), 1, POLICY)
    assert decided == Retry(SHORT, "unexpected_error", "ValueError")


def test_an_outage_uses_up_no_tries_and_is_waited_out_in_short_tiers() -> None:
    outage = Unavailable("payment: status 503", dependency="payment", pause=False)
    decided = verdict.judge(outage, 8, POLICY)
    assert decided == Retry(SHORT, "unavailable", f"Unavailable: {outage}", spent=False)
    assert isinstance(decided, Retry)
    assert verdict.put_off(dead_letter(), decided, 8, NOW).properties.headers["x-attempt"] == 8
    next_verdict = verdict.judge(outage, 8, POLICY, 3600)
    assert isinstance(next_verdict, Retry)
    assert next_verdict.tier is MIDDLE


def test_an_outage_of_a_whole_day_ends_with_a_person() -> None:
    outage = Unavailable("payment: status 503", dependency="payment", pause=False)
    failing_since: dict[str, object] = {
        "x-first-failed-at": (NOW - dt.timedelta(days=1)).isoformat()
    }
    failing_for_s = verdict.failing_for_s(dead_letter(failing_since), NOW)
    decided = verdict.judge(outage, 1, POLICY, failing_for_s)
    assert decided == Dead("unavailable", f"Unavailable: {outage}")


@pytest.mark.parametrize("text", ["yesterday", "2026-01-30T00:00:00", 5, ["x"]])
def test_a_strange_moment_is_no_failure_of_long_ago(text: object) -> None:
    assert verdict.failing_for_s(dead_letter({"x-first-failed-at": text}), NOW) == 0


def test_a_copy_waits_in_its_tier_and_counts_the_try() -> None:
    copy = verdict.put_off(dead_letter(), Retry(SHORT, "why", "Error: e"), 3, NOW)
    assert (copy.exchange, copy.routing_key) == ("", "order-processing.retry.5s")
    assert copy.body == b"body"
    assert copy.properties.headers == {
        "traceparent": "00-1-2-01",
        "x-attempt": 4,
        "x-first-failed-at": "2026-01-31T12:00:00+00:00",
        "x-reason": "why",
        "x-error": "Error: e",
    }


def test_the_first_failure_is_remembered() -> None:
    next_verdict = dead_letter({"x-first-failed-at": "2026-01-30T00:00:00+00:00", "x-attempt": 2})
    copy = verdict.put_off(next_verdict, Retry(SHORT, "why", "e"), 2, NOW)
    assert copy.properties.headers["x-first-failed-at"] == "2026-01-30T00:00:00+00:00"


def test_a_dead_copy_says_why_and_when() -> None:
    copy = verdict.dead_letter_copy(dead_letter(), Dead("why", "Error: e"), 8, NOW)
    assert copy.routing_key == "order-processing.dead"
    headers = copy.properties.headers
    assert (headers["x-reason"], headers["x-attempt"]) == ("why", 8)
    assert headers["x-died-at"] == "2026-01-31T12:00:00+00:00"


def test_a_copy_leaves_behind_what_would_lose_it() -> None:
    """x-death looks like a cycle, CC routes elsewhere, expiration and user_id drop or refuse it."""
    past = {"x-death": [], "x-first-death-queue": "q", "x-delivery-count": 3, "CC": ["x"]}
    copy = verdict.put_off(dead_letter(past), Retry(SHORT, "why", "e"), 1, NOW)
    assert not past.keys() & copy.properties.headers.keys()
    assert copy.properties.expiration is None
    assert copy.properties.user_id is None
    assert copy.properties.delivery_mode == 2
    assert (copy.properties.message_id, copy.properties.correlation_id) == ("m", "c")


def test_a_replayed_copy_starts_afresh() -> None:
    marks = {"x-attempt": 8, "x-reason": "r", "x-error": "e", "x-died-at": "d"}
    copy = verdict.replay_copy(
        dead_letter({**marks, "x-first-failed-at": "f"}), "", "order-processing"
    )
    assert copy.properties.headers == {"traceparent": "00-1-2-01"}
