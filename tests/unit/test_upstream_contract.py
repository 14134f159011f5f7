"""The clients' reading of answers, and the small rules of a call."""

import datetime as dt
import email.utils
from decimal import Decimal

import pytest

from orders.errors import Permanent
from orders.upstream.http import InvalidAnswer, decode, error_code, refusal
from orders.upstream.inventory import Availability
from orders.upstream.payment import _cents
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpResponse, retry_after_s


def test_a_request_of_a_user_gets_one_try_within_its_budget() -> None:
    policy = UpstreamPolicy(breaker_failures=7).within(0.3)
    assert (policy.deadline_s, policy.try_timeout_s, policy.retries) == (0.3, 0.3, 0)
    assert policy.breaker_failures == 7


def test_retry_after_is_seconds_or_a_date() -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    assert retry_after_s("7") == 7
    date = retry_after_s(email.utils.format_datetime(later, usegmt=True))
    assert date == pytest.approx(60, abs=2)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("9" * 400) == 3600


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "٣", "Wed, 99 Oct 2015"])
def test_a_retry_after_nobody_understands_is_ignored(value: str) -> None:
    assert retry_after_s(value) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"\xff", b'{"productId":"1"}'])
def test_an_answer_outside_the_contract_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        decode(HttpResponse(200, body), Availability)


def test_a_new_member_of_an_answer_is_fine() -> None:
    body = b'{"productId":1,"available":2,"sufficient":true,"warehouse":"x"}'
    assert decode(HttpResponse(200, body), Availability) == Availability(1, 2, True)


def test_a_definite_no_is_permanent_and_quotes_nothing_but_a_code() -> None:
    with pytest.raises(Permanent, match="status 401, no code"):
        decode(HttpResponse(401, b'{"error":"<script> secret"}'), Availability)
    conflict = refusal(HttpResponse(409, b'{"error":"conflict"}'))
    assert conflict.reason == "upstream_conflict"
    assert error_code(HttpResponse(409, b"\xff")) == ""


@pytest.mark.parametrize("amount", ["0", "-1", "0.001"])
def test_an_amount_that_is_no_money_is_never_sent(amount: str) -> None:
    with pytest.raises(ValueError, match="at most two decimals"):
        _cents(Decimal(amount))


def test_an_amount_has_two_decimals() -> None:
    assert str(_cents(Decimal("1E+1"))) == "10.00"
