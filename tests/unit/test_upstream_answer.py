"""HTTP answers that arrive in pieces."""

import pytest

from orders.upstream.answer import Answer, NotUnderstood, TooLong, answer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nRetry-After: 7\r\n\r\ntrue"
CHUNKED = (
    b"HTTP/1.1 409 No\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\ntr\r\n2\r\nue\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (OK, Answer(200, b"true", True, "7")),
        (CHUNKED, Answer(409, b"true", True, "")),
        (
            b"HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Answer(200, b"", False, ""),
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"", True, "")),
    ],
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(
    response: bytes, expected: Answer
) -> None:
    assert [answer(response[:end], 100) for end in range(len(response))] == [None] * len(response)
    assert answer(response, 100) == expected


@pytest.mark.parametrize(
    "strange",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\nmore",
        OK + b"more",
        CHUNKED + b"more",
        b"SSH-2.0\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_what_is_not_plain_is_left_to_a_full_client(strange: bytes) -> None:
    with pytest.raises(NotUnderstood):
        answer(strange, 100)


@pytest.mark.parametrize(
    "long",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n",
    ],
)
def test_a_body_that_is_too_long_is_refused_before_it_came(long: bytes) -> None:
    with pytest.raises(TooLong):
        answer(long, 100)
