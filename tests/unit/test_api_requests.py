"""A body is an order with all values in bounds, or a refusal that names each fault."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders.api.problems import Refusal
from orders.api.requests import check_media_type, decode_order
from orders.domain.order import MAX_ID

GOOD: dict[str, Any] = {
    "userId": "7", "productId": "3", "quantity": "2", "total": "19.9", "paymentMethod": '"visa"',
}  # fmt: skip


def body(**changes: str | None) -> bytes:
    """Write a body from literals; None leaves a member out."""
    members = {**GOOD, **changes}
    texts = (f'"{name}":{value}' for name, value in members.items() if value is not None)
    return ("{" + ",".join(texts) + "}").encode()


def refused(given_body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode_order(given_body)
    return caught.value


def test_a_body_becomes_an_order() -> None:
    order = decode_order(body())
    assert (order.user_id, order.product_id, order.quantity) == (7, 3, 2)
    assert (order.total, order.payment_method) == (Decimal("19.90"), "visa")


@pytest.mark.parametrize(
    ("literal", "cents"),
    [
        ("19.9", 1990), ("19.90", 1990), ("20", 2000), ("1e1", 1000), ("1E+1", 1000),
        ("100e-2", 100), ("0.01", 1), ("1e-2", 1), ("0.010", 1), ("99999999.99", 9999999999),
        ("9999999999e-2", 9999999999), ("0.1" + "0" * 1000, 10), (" 5 ", 500),
    ],
)  # fmt: skip
def test_money_keeps_the_digits_that_were_sent(literal: str, cents: int) -> None:
    assert decode_order(body(total=literal)).total * 100 == cents


@pytest.mark.parametrize(
    "literal",
    [
        "0", "0.00", "-1", "-0.01", "0.001", "19.999", "1e-3", "100000000", "99999999.991", "1e8",
        "1e400", "1e999999999", "1e-999999999", "1e99999999999999999999", '"19.9"', "null", "true",
        "[]", "{}", '"\xff"',
    ],
)  # fmt: skip
def test_money_out_of_bounds_is_refused_where_it_stands(literal: str) -> None:
    refusal = refused(body(total=literal))
    assert refusal.kind.status == 400
    assert [fault.pointer for fault in refusal.faults] == ["#/total"]


@given(st.decimals("0.01", "99999999.99", places=2))
def test_every_amount_in_bounds_arrives_exactly(amount: Decimal) -> None:
    assert decode_order(body(total=str(amount))).total == amount


@pytest.mark.parametrize("member", ["userId", "productId"])
@pytest.mark.parametrize("literal", ["1", str(MAX_ID)])
def test_ids_reach_from_1_to_what_json_keeps_exact(member: str, literal: str) -> None:
    decode_order(body(**{member: literal}))


@pytest.mark.parametrize(
    ("member", "literal"),
    [
        (member, literal)
        for member in ("userId", "productId", "quantity")
        for literal in ("0", "-1", "1.0", "1e0", str(MAX_ID + 1), "9" * 400, '"1"', "null", "true")
    ]
    + [("quantity", "1001")]
    + [
        ("paymentMethod", literal)
        for literal in ('""', '"a b"', '"a\\n"', '"é"', '"' + "a" * 65 + '"', "1", "null", '"a/b"')
    ],
)
def test_a_value_out_of_bounds_is_refused_where_it_stands(member: str, literal: str) -> None:
    refusal = refused(body(**{member: literal}))
    assert refusal.kind.status == 400
    assert [fault.pointer for fault in refusal.faults] == [f"#/{member}"]


@pytest.mark.parametrize("member", GOOD)
def test_a_missing_member_points_at_where_it_would_be(member: str) -> None:
    assert [fault.pointer for fault in refused(body(**{member: None})).faults] == [f"#/{member}"]


def test_every_fault_is_named() -> None:
    refusal = refused(b'{"userId":0,"total":-1,"x":1}')
    places = {fault.pointer for fault in refusal.faults}
    assert places == {"#/x", "#/userId", "#/total", "#/productId", "#/quantity", "#/paymentMethod"}


def test_unknown_members_are_refused_and_escaped() -> None:
    assert refused(body(**{"a/b~ü": "1"})).faults[0].pointer == "#/a~1b~0%C3%BC"


def test_no_more_than_twenty_faults_are_named() -> None:
    assert len(refused(body(**{f"x{i}": "1" for i in range(34)})).faults) == 20


HOSTILE = {
    "members": b"{" + b",".join(b'"m%d":1' % i for i in range(6500)) + b"}",
    "depth": b'{"a":' + b"[" * 65_000,
    "objects": b'{"userId":' * 6500,
    "digits": body(total="9" * 65_000),
    "decimals": body(total="0." + "0" * 65_000 + "1"),
    "escapes": body(paymentMethod='"' + "\\u0041" * 10_000 + '"'),
    "elements": b'{"a":[' + b"1," * 30_000 + b"1]}",
    "spaces": b" " * 65_000,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_of_64_kib_costs_no_more_than_twice_its_size_in_plain_json(
    hostile: bytes,
) -> None:
    plain = json.dumps({f"m{number}": number for number in range(4_600)})
    assert len(plain) > len(hostile)

    def cost_s(decode: Callable[[], object]) -> float:
        started_s = time.thread_time()
        decode()
        return time.thread_time() - started_s

    # Round by round: the machine is equally busy for both.
    rounds = [
        (cost_s(lambda: refused(hostile)), cost_s(lambda: json.loads(plain))) for _ in range(20)
    ]
    refusing_s, plain_s = (min(costs) for costs in zip(*rounds, strict=True))
    assert refusing_s < 2 * plain_s  # 6,500 unknown members took four times as long


@pytest.mark.parametrize(("name", "literal"), GOOD.items())
def test_a_repeated_member_is_refused_and_named(name: str, literal: str) -> None:
    refusal = refused(body()[:-1] + f',"{name}":{literal}}}'.encode())
    assert [fault.pointer for fault in refusal.faults] == [f"#/{name}"]
    escaped = f',"\\u{ord(name[0]):04x}{name[1:]}":{literal}}}'
    assert refused(body()[:-1] + escaped.encode()).kind.status == 400


@pytest.mark.parametrize(
    "malformed",
    [
        b"", b" ", b"{", b"}", b"null", b"[]", b"1", b'"x"', b"{}x", b"\xef\xbb\xbf" + body(),
        body() + b" x", body() + body(), body()[:-1], body().replace(b":", b"="),
        body().replace(b'"', b"'"), b"\xff\xfe", body(total="01"), body(total="1."),
        body(total=".5"), body(total="+1"), body(total="NaN"), body(total="Infinity"),
        body(total="0x10"), body(quantity="02"), body(paymentMethod='"\\ud800"'),
        body().replace(b"visa", b"\xff"), body().replace(b"visa", b"\xed\xa0\x80"),
        body().replace(b"visa", b"\x00"), b"[" * 60_000, b'{"a":' * 10_000,
        b'{"total":' + b"[" * 60_000, body()[:-1] + b",}", b"{'userId':1}", b"//\n" + body(),
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused_without_a_crash(malformed: bytes) -> None:
    assert refused(malformed).kind.status == 400


# A machine that is busy generates slowly; that says nothing about the decoder.
_BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_BUSY
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(given_body: bytes) -> None:
    with pytest.raises(Refusal):
        decode_order(given_body)


@_BUSY
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_no_json_value_crashes_the_decoder(value: Any) -> None:
    for name in GOOD:
        refused(body(**{name: msgspec.json.encode([value]).decode()}))


def test_whitespace_and_order_of_members_do_not_matter() -> None:
    members = list(GOOD.items())
    turned = ",\n ".join(f'"{name}" :\t{value}' for name, value in reversed(members))
    order = decode_order(f" {{ {turned} }}\r\n".encode())
    assert order.fingerprint() == decode_order(body(total="19.90")).fingerprint()


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json", "Application/JSON", "application/json; charset=utf-8",
        "application/json;charset=UTF-8", 'application/json ; charset="utf-8"',
    ],
)  # fmt: skip
def test_json_in_utf8_is_taken(media_type: str) -> None:
    check_media_type(media_type, None)


@pytest.mark.parametrize(
    "media_type",
    ["application/json;", "application/json; ; charset=UTF-8", 'application/json;charset="utf-8";'],
)
def test_a_parameter_may_be_empty(media_type: str) -> None:
    check_media_type(media_type, None)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_a_media_type_of_any_bytes_is_taken_or_refused(text: str) -> None:
    for media_type in (text, f"application/json;{text}"):
        with suppress(Refusal):
            check_media_type(media_type, None)


@pytest.mark.parametrize(
    ("media_type", "encoding"),
    [
        (None, None), ("", None), ("text/plain", None), ("application/problem+json", None),
        ("application/vnd.api+json", None), ("application/json; charset=latin-1", None),
        ("application/json; charset=utf-16", None), ("application/json;a=b", None),
        ("application/json, application/json", None), ("application/jsonx", None),
        ("application/x-www-form-urlencoded", None), ("application/json", "gzip"),
        ("application/json", "identity"), ("application/json", ""),
    ],
)  # fmt: skip
def test_another_media_type_is_refused(media_type: str | None, encoding: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        check_media_type(media_type, encoding)
    assert caught.value.kind.status == 415
