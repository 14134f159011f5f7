"""Bodies that change an order: what is stored was written once, and as text."""

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orders.api import changes
from orders.api.problems import Refusal

PUNCTUATION = st.text('{}[]":,\\ \n019.eE+-trufalsn', min_size=1).map(str.encode)
DECODERS: list[Callable[[dict[str, Any]], object]] = [changes.cancellation, changes.refund]


def environ(body: bytes) -> dict[str, Any]:
    return {
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"amount": 1, "amount": 2}', "#/amount"),
        (b'{"amount": 1, "reason": "a", "reason": "a"}', "#/reason"),
        (b'{"amount": 1, "\\u0061mount": 1}', "#/amount"),
    ],
)
def test_a_member_that_is_given_twice_is_refused(body: bytes, pointer: str) -> None:
    with pytest.raises(Refusal) as caught:
        changes.refund(environ(body))
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_reason_that_is_given_twice_is_refused_in_a_cancellation() -> None:
    with pytest.raises(Refusal, match="more than once"):
        changes.cancellation(environ(b'{"reason": "a", "reason": "b"}'))


@pytest.mark.parametrize("text", [r"a\u0000b", r"\u001b[2J", r"\u009b31m", r"\r", "\x7f"])
@pytest.mark.parametrize("decode", DECODERS)
def test_a_reason_has_no_control_characters(
    decode: Callable[[dict[str, Any]], object], text: str
) -> None:
    amount = '"amount": 1, ' if decode is changes.refund else ""
    with pytest.raises(Refusal, match="control characters"):
        decode(environ(f'{{{amount}"reason": "{text}"}}'.encode()))


def test_a_reason_may_have_lines_and_any_script() -> None:
    cancellation = changes.cancellation(environ('{"reason": "zu groß:\\n\\t大 😀"}'.encode()))
    assert cancellation.reason == "zu groß:\n\t大 😀"


@pytest.mark.parametrize("decode", DECODERS)
@given(body=st.binary(min_size=1) | PUNCTUATION)
@example(body=b'{"amount": ' + b"1" * 5000 + b"}")
@example(body=b'{"amount": ' + b"[" * 20_000 + b"]" * 20_000 + b"}")
@example(body=b'{"amount": "\xff"}')
@example(body=b'{"reason": "\\ud800"}')
@example(body=b'{"reason": NaN}')
def test_any_bytes_are_a_change_or_a_refusal(
    decode: Callable[[dict[str, Any]], object], body: bytes
) -> None:
    with suppress(Refusal):
        decode(environ(body))
