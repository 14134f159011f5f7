"""Hostile requests, each made from a number: the same number makes the same request again.

Grammars: RFC 9110 (fields, media types, tags), 9112 (framing), 8259 (JSON), 7519 (tokens), 3986
(targets), W3C Trace Context.
"""

import base64
import hmac
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from attack.targets import SECRET, claims
from attack.wire import request
from fuzz.inputs import generate as stream

Chance = random.Random
Server = Literal["api", "gateway"]
_SERVERS: Final[Sequence[Server]] = ("api", "gateway")
# 5xx that a stream asks for: meinheld answers 503 to a request that is cut off, nginx and gunicorn
# 501 and 505 to codings and versions that they do not know.
ASKED: Final = frozenset({501, 503, 505})
_GOOD: Final[dict[str, Any]] = {
    "userId": 7, "productId": 101, "quantity": 1, "total": 19.9, "paymentMethod": "card",
}  # fmt: skip
_JSON: Final = "Content-Type: application/json"
_WRITER: Final = json.JSONEncoder()  # writes lone surrogates and numbers of any size


class Input(NamedTuple):
    """The bytes to send: one whole request, or pieces of a stream that may be anything.

    `once`: the pieces are one request; a server that answers twice has read them as two.
    """

    kind: str
    pieces: Sequence[bytes]
    server: Server
    whole: bool = True
    once: bool = False


def generate(seed: int, authorization: str | None) -> Input:
    """Return the input of a seed; with `authorization` most requests have a good token."""
    chance = Chance(seed)
    (kind,) = chance.choices(list(_MAKERS), [weight for weight, _ in _MAKERS.values()])
    server = chance.choice(_SERVERS)
    match kind:
        case "stream":
            return Input(kind, stream(seed).pieces, server, whole=False)
        case "framing":
            message, once = _framing(chance)
            return Input(kind, [message], server, whole=False, once=once)
    fields = [f"Authorization: Bearer {authorization}"] if authorization else []
    maker = _MAKERS[kind][1]
    return Input(kind, [maker(chance, fields)], server)


# -- values --------------------------------------------------------------------------------------

_NUMBERS: Final = (
    "0", "1", "-1", "7", "1000", "1001", "9007199254740991", "9007199254740992", "1.0", "1e2",
    "1e400", "-0", "0.01", "0.001", "19.90", "19.999", "99999999.99", "1" * 400, "1" * 5000,
    "9" * 30, "0.1e1", "1E-2", "NaN", "Infinity", "01", "+1", ".5", "1.",
)  # fmt: skip
_TEXTS: Final = (
    '""', '"card"', '"a b"', '"' + "x" * 64 + '"', '"' + "x" * 65 + '"', r'"\u0000"', r'"\ud800"',
    r'"\udc00\ud800"', '"\x7f"', '"é"', r'"\x"', '"\t"', '"\\u001b[2J"', '"' + "y" * 5000 + '"',
)  # fmt: skip
_OTHERS: Final = ("null", "true", "[]", "{}", '{"a":1}', "[" * 50 + "]" * 50, "", "undefined")
_BODIES: Final = (
    b"", b" ", b"null", b"[]", b"7", b'"x"', b"{", b"}", b"\xff", b"\xef\xbb\xbf{}", b"{}{}",
    b"[" * 60_000, b'{"a":' * 10_000, b'"' * 60_000, b"{}" + b" " * 60_000, b"\x00" * 100,
    b"{" + b",".join(b'"m%d":1' % n for n in range(5000)) + b"}", b"x" * 66_000,
    b'{"total":' + b"9" * 60_000 + b"}", b'{"paymentMethod":"' + b"\\u0041" * 9_000 + b'"}',
)  # fmt: skip
_IDS: Final = (
    "1", "2", "0", "-1", "01", "9007199254740991", "9007199254740992", "9" * 500, "x", "%31",
    "1%00", "1/", "../1", "%2e%2e", "%252F", "1;a=b", "1%0d%0aX:y", "", "²", "1 ", "null",
)  # fmt: skip
_VALUES: Final[dict[str, Sequence[str]]] = {
    "Accept": (
        "*/*", "", ",", "text/html;q=2", "a/b;q=0.0001", "*/*;q=", "application/json;;", "x" * 3000,
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "application/openmetrics-text; version=1.0.0",
        'a/b;c="unclosed', "/", "*", "é/ü",
    ),
    "Content-Type": (
        "application/json", "application/json;", "application/json; ;charset=utf-8", "text/plain",
        'application/json;charset="UTF-8"', "application/json;charset=latin-1", "", ";", "/",
        "application/json;a", "application/json;=b", 'application/json;charset="', "x" * 3000,
        "application/json, application/json", "multipart/form-data", "application/jsonx",
        "application/x-www-form-urlencoded; boundary=\u00ff",
    ),
    "Content-Encoding": ("gzip", "identity", "", "br, gzip"),
    "Idempotency-Key": ("k", '"k"', "", '"', '""', "a,b", "x" * 256, '"\\"', "é", '"' + "\\" * 9),
    "If-None-Match": ("*", '"v1"', 'W/"v1"', "v1", '"', ", ,", '"' + "x" * 5000 + '"', '"\u00ff"'),
    "If-Match": ("*", '"v1"'),
    "Range": ("bytes=0-0", "bytes=-1", "x"),
    "traceparent": (
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "ff",
        "01-" + "a" * 32 + "-" + "b" * 16 + "-01-more", "",
        "00-" + "A" * 32 + "-" + "b" * 16 + "-0",
    ),
    "tracestate": ("a=b", "=", "x" * 2000),
    "baggage": ("userId=1", "x" * 2000),
    "X-Correlation-ID": ("a", "", "x" * 65, "a b", "a\tb", "é", "../../etc"),
    "X-Forwarded-For": ("1.2.3.4", "::1", "fe80::1%eth0", "x", ",", "1.2.3.4, " * 50, "[::1]:80"),
    "X-Request-Start": ("t=", "t=x", "t=1e400", "t=nan", "x"),
    "Expect": ("100-continue",),
    "Cookie": ("a=b; " * 100,),
    "Authorization": ("Basic dTpw", "Bearer", "Bearer a b", "bearer x", "", "Bearer " + "x" * 7000),
    "X-HTTP-Method-Override": ("DELETE",),
    "Connection": ("keep-alive", "close", "close, keep-alive", "x"),
}  # fmt: skip
_QUERIES: Final = (
    "", "page=1", "page=0", "page=1&page=2", "pageSize=100", "pageSize=101", "a=b&" * 60, "%", "=",
    "page=101&pageSize=100", "cursor=", "cursor=" + "A" * 44, "cursor=x&page=1",
    "page=10000&pageSize=1",
    "page=%31", "page=1%00", "page=" + "9" * 500, "cursor=%ff%fe", "&&&&", "page=1;pageSize=2", "?",
    "page[]=1", "page=²",
)  # fmt: skip
# Odd, but of no request's end: without a length there is no body, and what follows is a request.
_LINES: Final = (b"X: a\x00b", b"No-colon", b": nameless", b"Na me: x", b"X\ry: z")
_JOSE: Final = ("kid", "typ", "crit", "jku", "jwk", "x5u", "b64")
_ALGORITHMS: Final = ("HS256", "HS256", "HS512", "none", "RS256", "")
_FRAMES: Final = (
    b"Content-Length: 1 0", b"Content-Length:", b"Content-Length: 18446744073709551619",
    b"Content-Length: -1", b"Content-Length: +3", b"Content-Length: 0x3", b"Content-Length: 3, 3",
    b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked", b"Content-Length : 3",
    b"Transfer-Encoding\r\n : chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Content-Length: 3\r\nContent-Length: 4",
    b"Content-Length: 3\r\nTransfer-Encoding: chunked",
)  # fmt: skip


# -- makers --------------------------------------------------------------------------------------


def _framing(chance: Chance) -> tuple[bytes, bool]:
    """Write a request whose end two readers may see in two places, with another one in it.

    The second value tells whether it must not be read as two.
    """
    odd = chance.choice(_FRAMES + _LINES)
    lines = [b"Host: orders.example", odd]
    if chance.random() < 0.3:
        lines.insert(chance.randrange(3), b"X-Filler: " + b"x" * chance.choice((1, 200, 4000)))
    inner = b"GET /health HTTP/1.1\r\nHost: orders.example\r\n\r\n"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner) if chance.random() < 0.5 else inner
    target = chance.choice((b"/api/orders", b"/health", b"/"))
    message = b"POST %b HTTP/1.1\r\n%b\r\n\r\n%b" % (target, b"\r\n".join(lines), body)
    return message, odd in _FRAMES


def _body(chance: Chance, fields: list[str]) -> bytes:
    target, names = chance.choice((
        ("/api/orders", tuple(_GOOD)),
        (f"/api/orders/{chance.randint(1, 50)}/cancellation", ("reason",)),
        (f"/api/orders/{chance.randint(1, 50)}/refunds", ("amount", "reason")),
    ))  # fmt: skip
    if chance.random() < 0.3:
        return request("POST", target, [*fields, _JSON], chance.choice(_BODIES))
    members = [(name, _literal(chance, name)) for name in names if chance.random() < 0.95]
    if chance.random() < 0.2:
        members.append(chance.choice([*members, ("x", "1"), ("__proto__", "{}"), ("é", "1")]))
    text = "{" + ",".join(f'"{name}":{literal}' for name, literal in members) + "}"
    return request("POST", target, [*fields, _JSON], text.encode("utf-8", "surrogatepass"))


def _literal(chance: Chance, name: str) -> str:
    if name in _GOOD and chance.random() < 0.7:
        return msgspec.json.encode(_GOOD[name]).decode()
    return chance.choice(chance.choice((_NUMBERS, _TEXTS, _OTHERS)))


def _fields(chance: Chance, fields: list[str]) -> bytes:
    names = chance.sample(list(_VALUES), chance.choice((1, 1, 2, 4)))
    odd = [f"{name}: {chance.choice(_VALUES[name])}" for name in names]
    if "Authorization" in names or "Content-Type" in names:
        fields = [] if "Authorization" in names else fields
    lines = [line.encode("utf-8") for line in [*odd, *fields]]
    if chance.random() < 0.5:
        return request("GET", f"/api/orders/{chance.randint(1, 50)}", lines)
    usual = [] if "Content-Type" in names else [_JSON]
    return request("POST", "/api/orders", [*lines, *usual], msgspec.json.encode(_GOOD))


def _target(chance: Chance, fields: list[str]) -> bytes:
    text = chance.choice(_IDS)
    path = chance.choice((
        f"/api/orders/{text}", f"/api/orders/{text}/history", f"/api/orders/user/{text}",
        f"/api/orders/{text}/{text}", f"/{text}", "/api//orders", "/api/orders/", "//",
        "/docs/" + text, "/openapi.json", "/metrics", "*", "http://other.example/health",
        "/api/orders/user/7",
    ))  # fmt: skip
    query = chance.choice(_QUERIES)
    # A space would end the target: what is meant is an odd target in a request that is whole.
    target = (f"{path}?{query}" if query else path).replace(" ", "%20")
    octets = target.encode("utf-8").decode("latin-1")
    return request(
        chance.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE", "PUT")), octets, fields
    )


def _order(chance: Chance, fields: list[str]) -> bytes:
    key = f"Idempotency-Key: {chance.randint(0, 99)}"
    body = msgspec.json.encode(_GOOD | {"quantity": chance.randint(1, 9)})
    return request("POST", "/api/orders", [*fields, _JSON, *[key] * chance.randint(0, 1)], body)


def _read(chance: Chance, fields: list[str]) -> bytes:
    number = chance.randint(1, 200)
    paths = (f"/api/orders/{number}", f"/api/orders/{number}/history", "/api/orders/user/7")
    return request("GET", chance.choice(paths), fields)


def _token(chance: Chance, _fields: list[str]) -> bytes:
    odd: Sequence[Any] = (
        None, "", "7", 7, -1, 10**400, 1e300, [], {}, True, ["7"], "\ud800", "x" * 200, "a\n b",
        2**53, "0", "-7", "٧",
    )  # fmt: skip
    names = ("sub", "exp", "nbf", "iat", "iss", "aud", "scope", "scp", "jti")
    header: dict[str, Any] = {"alg": chance.choice(_ALGORITHMS)}
    if chance.random() < 0.3:
        header[chance.choice(_JOSE)] = chance.choice(odd)
    content = claims()
    for _ in range(chance.randint(0, 2)):
        content[chance.choice(names)] = chance.choice(odd)
    text = signed(header, content)
    if chance.random() < 0.3:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(("", ".", "=", "A", "-", "%00")) + text[at + 1 :]
    return request("GET", "/api/orders/user/7", [f"Authorization: Bearer {text}"])


def signed(header: dict[str, Any], content: dict[str, Any]) -> str:
    """Sign any header and content, as a careless or a hostile issuer would."""
    head = ".".join(_part(text) for text in (header, content))
    mac = hmac.digest(SECRET.encode(), head.encode(), "sha256")
    return f"{head}.{_base64(mac)}"


def _part(value: dict[str, Any]) -> str:
    return _base64(_WRITER.encode(value).encode())


def _base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _nothing(_chance: Chance, _fields: list[str]) -> bytes:
    return b""


# How many of a hundred, and how one is made; streams and framing are made elsewhere.
_MAKERS: Final[dict[str, tuple[int, Callable[[Chance, list[str]], bytes]]]] = {
    "stream": (15, _nothing),
    "framing": (8, _nothing),
    "body": (22, _body),
    "fields": (18, _fields),
    "target": (14, _target),
    "token": (8, _token),
    "order": (5, _order),
    "read": (10, _read),
}
