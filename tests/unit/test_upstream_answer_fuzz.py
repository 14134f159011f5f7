"""The sets' own reader of HTTP answers, fuzzed: what it takes, http.client takes, and as the same.

`FUZZ_EXAMPLES=200000` tries more of them.
"""

import http.client
import io
import os
from typing import Any, Final, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orders.upstream.answer import Answer, NotUnderstood, TooLong, answer, longest
from orders.upstream.transport import RETRY_AFTER_LIMIT_S, retry_after_s

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "300"))
LIMIT: Final = 64

END = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\n\t", b"\r\r\n", b"\n\r\n", b""])
BODY = st.binary(max_size=12) | st.sampled_from([b"{}", b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK"])
START = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 12
    + [
        b"HTTP/1.1 404 Not Found", b"HTTP/1.1 503", b"HTTP/1.1 204 No", b"HTTP/1.1 304 ",
        b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Hints", b"HTTP/1.0 200 OK", b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1 099 x", b"HTTP/2 200",
        b"http/1.1 200 OK",
        b"HTTP/1.1 200 \xff\x00", b"HTTP/1.1 200 OK\nContent-Length: 1", b"ICY 200 OK",
    ]
)  # fmt: skip
NAME = st.sampled_from(
    [
        b"Content-Length", b"Content-Length", b"content-length", b"Transfer-Encoding",
        b"Transfer-Encoding", b"Connection", b"Retry-After", b"Retry-After", b"X", b"Date",
        b"Content-Length ", b" Content-Length", b"Content-Length\t", b"Transfer-Encoding ",
        b"", b"a b", b"a\x00", b"\xff", b"Content\x0bLength", b"X\nContent-Length", b"Trailer",
    ]
)  # fmt: skip
VALUE = st.sampled_from(
    [
        b"0", b"1", b"2", b"5", b"+1", b"-1", b"1, 1", b"0x1", b"01", b"\x0b1", b"1 1",
        b"999999999",
        b"chunked", b"chunked", b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity",
        b"chunked;q=1", b"close", b"keep-alive, close", b"Close,x", b"keep-alive", b"7", b"9" * 400,
        b"Wed, 21 Oct 2015 07:28:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -2359", b"", b"\x00", b"a\nb",
    ]
)  # fmt: skip
EXTENSION = st.sampled_from(
    [b""] * 8 + [b";a", b";a=b", b' ;a="b"', b";a\nb", b' ; a="\r"', b" ", b"\t", b"\x0b"]
)
TRAILER = st.sampled_from([b""] * 8 + [b"X: y\r\n", b"Content-Length: 9\r\n", b" z\r\n", b"\n"])


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """Draw a body in chunks, by RFC 9112 §7.1 and not quite."""
    coded = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
        exact = f"{len(chunk):x}"
        size = draw(
            st.sampled_from(
                [exact] * 8
                + [exact.upper(), f"00{exact}", f"0x{exact}", f"+{exact}", f"{exact}0", f"-{exact}",
                   f"{exact}_0", "", "g"]
            )
        )  # fmt: skip
        coded += size.encode() + draw(EXTENSION) + draw(END) + chunk + draw(END)
    return coded + b"0" + draw(EXTENSION) + draw(END) + draw(TRAILER) + draw(END)


@st.composite
def received(draw: st.DrawFn) -> bytes:
    """Draw what came over a connection: an answer by RFC 9112 §6, and not quite."""
    coded = draw(st.booleans())
    body = draw(chunks()) if coded else draw(BODY)
    framing = (
        (b"Transfer-Encoding", b"chunked") if coded else (b"Content-Length", b"%d" % len(body))
    )
    fields = draw(st.lists(st.tuples(NAME, VALUE), max_size=3))
    if draw(st.sampled_from([True] * 5 + [False])):
        fields.insert(draw(st.integers(0, len(fields))), framing)
    lines = [
        name + b":" + draw(st.sampled_from([b" ", b"", b"\t"])) + value for name, value in fields
    ]
    head = b"".join(line + draw(END) for line in [draw(START), *lines])
    more = draw(st.sampled_from([b""] * 8 + [b"x", b"HTTP/1.1 200 OK\r\n\r\n"]))
    return head + draw(END) + body + more


class UpstreamConnection:
    """A connection on which only these bytes come."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._contents)


def full_client(contents: bytes) -> tuple[int, bytes, str, bool]:
    """Return what http.client makes of an answer: status, body, Retry-After, kept."""
    response = http.client.HTTPResponse(cast("Any", UpstreamConnection(contents)), method="PUT")
    response.begin()
    body = response.read()
    return response.status, body, response.headers.get("Retry-After", ""), not response.will_close


def understood(contents: bytes) -> Answer | None:
    try:
        return answer(contents, LIMIT)
    except (NotUnderstood, TooLong):
        return None


@settings(max_examples=EXAMPLES, deadline=None)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n")
@example(b"HTTP/1.1 200 OK\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nX\x00\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
@given(received())
def test_what_is_taken_is_what_a_full_client_takes(contents: bytes) -> None:
    own_value = understood(contents)
    if own_value is None:
        return
    status, body, retry_after, stays_open = full_client(contents)
    assert (own_value.status, own_value.body, own_value.retry_after) == (
        status,
        body,
        retry_after.strip(" \t"),
    )
    assert stays_open or not own_value.kept, "the server closes this connection"


@settings(max_examples=EXAMPLES, deadline=None)
@given(received(), st.data())
def test_no_part_of_an_answer_is_taken_for_the_whole(contents: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, max(0, len(contents) - 1)))
    if understood(contents) is not None:
        assert answer(contents[:cut], LIMIT) is None
    partial = understood(contents[:cut])
    if partial is not None:
        assert understood(contents) is None, "what comes after it means that it is not plain"


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=60) | received())
def test_bytes_of_any_kind_end_in_one_of_three_ways(contents: bytes) -> None:
    """An answer, the two refusals, or None for more to come: anything else ends a whole set."""
    understood(contents)
    understood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + contents)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;x=y\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
)
def test_an_answer_without_an_end_is_not_kept_in_memory(head: bytes, more: bytes) -> None:
    endless = head + more * (longest(LIMIT) // len(more) + 1)
    with pytest.raises((NotUnderstood, TooLong)):
        answer(endless, LIMIT)


ZONE = st.sampled_from(["GMT", "+0000", "-2359", "+9999", "+99999999999999", "x", ""])


@settings(max_examples=EXAMPLES, deadline=None)
@example("Wed, 21 Oct 2015 07:28:00 +99999999999999")
@example("Wed, 21 Oct 99999999999999999999 07:28:00 GMT")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@given(
    st.text(max_size=30)
    | st.builds(
        "{} {} {} {}:{}:{} {}".format,
        st.integers(-1, 40), st.sampled_from(["Jan", "Feb", "Dec", "Foo"]),
        st.sampled_from([0, 1, 68, 1900, 9999, 10_000, 10**20]),
        st.integers(-1, 99), st.integers(0, 99), st.integers(0, 99), ZONE,
    )
)  # fmt: skip
def test_a_retry_after_of_any_kind_is_a_wait_or_nothing(field: str) -> None:
    wait_s = retry_after_s(field)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_LIMIT_S
