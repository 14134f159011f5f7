"""Generate byte streams for an HTTP/1.1 server: well-formed requests, and mutations of them.

Everything follows from the seed, so an input that fails can be made again.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PURGE", "SEARCH")
_NAMES: Final = (
    "Accept",
    "X-Correlation-ID",
    "Idempotency-Key",
    "traceparent",
    "Content-Type",
    "A",
)
_PATH: Final = "abcXYZ019-._~!$&'()*+,;=:@/%%%%"
_TOKENS: Final = (
    b"Content-Length: 5\r\n", b"Content-Length: 18446744073709551617\r\n", b"Content-Length:\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED\r\n", b"\r\n", b"\n", b"\0",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: keep-alive\r\n", b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n", b"0\r\n",
    b"Expect: 100-continue\r\n", b"Expect: x\r\n", b" folded\r\n", b"nocolon\r\n", b"%2", b"%252F",
    b"\x80", b"5;ext=1\r\n", b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.0", b"HTTP/0.9",
    b"ffffffff\r\n", b"CONNECT a:1 HTTP/1.1\r\n",
)  # fmt: skip


class Input(NamedTuple):
    """The pieces to send, and the result to expect if the input is well-formed."""

    pieces: Sequence[bytes]
    expected: Sequence[dict[str, Any]] | None


def generate(seed: int) -> Input:
    """Return the input of a seed: a third well-formed, the rest mutated or cut off."""
    chance = random.Random(seed)
    requests = [
        _request(chance) for _ in range(1 if chance.random() < 0.8 else chance.randint(2, 5))
    ]
    stream = b"".join(request for request, _ in requests)
    expected = [expectation for _, expectation in requests]
    fate = chance.random()
    if fate < 0.33:
        return Input(_split(chance, stream), expected)
    if fate < 0.45:
        return Input(_split(chance, stream[: chance.randrange(len(stream))]), None)
    for _ in range(chance.randint(1, 4)):
        stream = _mutate(chance, stream)
    return Input(_split(chance, stream), None)


def _request(chance: random.Random) -> tuple[bytes, dict[str, Any]]:
    method = chance.choice(METHODS)
    path = "/" + "".join(chance.choices(_PATH, k=chance.choice((0, 3, 20, 200))))
    query = "".join(chance.choices(_PATH + "?", k=chance.choice((0, 0, 5, 100))))
    fields = [("Host", "a")] + [_field(chance) for _ in range(chance.choice((0, 1, 3, 20)))]
    body, framing, tail = _body(chance)
    fields += framing
    chance.shuffle(fields)
    target = f"{path}?{query}" if query else path
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(
        f"{name}: {text}\r\n" for name, text in fields
    )
    expectation = {
        "method": method,
        "path": unquote_to_bytes(path).decode("latin-1"),
        "query": query,
        "body": len(body),
        "fields": _joined(fields),
    }
    return head.encode("latin-1") + b"\r\n" + tail, expectation


def _field(chance: random.Random) -> tuple[str, str]:
    size = chance.choice((0, 1, 8, 60, 1000)) if chance.random() < 0.98 else 8192
    return chance.choice(_NAMES), "".join(chance.choices('ab \t,\xe9="', k=size)).strip(" \t")


def _body(chance: random.Random) -> tuple[bytes, list[tuple[str, str]], bytes]:
    """Return a body, the fields that frame it, and its bytes as they are sent."""
    kind = chance.random()
    if kind < 0.4:
        return b"", [], b""
    body = chance.randbytes(chance.choice((1, 10, 300, 5000)))
    if kind < 0.7:
        return body, [("Content-Length", str(len(body)))], body
    chunks = b""
    start = 0
    while start < len(body):
        size = chance.randint(1, len(body) - start)
        chunks += b"%x%b\r\n%b\r\n" % (
            size, chance.choice((b"", b";a=b", b" ")), body[start : start + size]
        )  # fmt: skip
        start += size
    trailers = b"".join(
        b"%b: t\r\n" % chance.choice((b"X-Trailer", b"Host", b"x" * 500))
        for _ in range(chance.choice((0, 0, 1, 5)))
    ) + chance.choice((b"", b"Content-Length: 7\r\n"))
    coding = chance.choice(("chunked", "Chunked", "CHUNKED"))
    return body, [("Transfer-Encoding", coding)], chunks + b"0\r\n" + trailers + b"\r\n"


def _joined(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, text in fields:
        key = name.upper().replace("-", "_")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _mutate(chance: random.Random, stream: bytes) -> bytes:
    at = chance.randrange(len(stream) + 1)
    end = min(len(stream), at + chance.choice((1, 1, 2, 10, 200)))
    match chance.randrange(6):
        case 0:
            return stream[:at] + chance.randbytes(1) + stream[at + 1 :]
        case 1:
            return stream[:at] + stream[end:]
        case 2:
            return stream[:at] + stream[at:end] * chance.choice((2, 3, 100)) + stream[end:]
        case 3:
            return stream[:at] + chance.choice((b"a", b"%", b"1", b":", b" ")) * 9000 + stream[at:]
        case _:
            lines = [i + 1 for i, byte in enumerate(stream[:4000]) if byte == 0x0A]
            index = chance.choice(lines) if lines and chance.random() < 0.7 else at
            return stream[:index] + chance.choice(_TOKENS) + stream[index:]


def _split(chance: random.Random, stream: bytes) -> Sequence[bytes]:
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice((0, 0, 1, 4))))
    places = [0, *cuts, len(stream)]
    return [stream[a:b] for a, b in pairwise(places) if a < b]
