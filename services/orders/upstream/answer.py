"""Parses an HTTP answer that arrives in pieces, and returns it once it is complete.

It understands only what today's servers send to a plain request: HTTP/1.1 with a length or in
chunks. It refuses all other answers, and those that other parsers might read differently. The
caller then repeats the request with urllib3 on a separate connection.
"""

import re
from typing import Final, NamedTuple

_HEAD_LIMIT_BYTES: Final = 16 * 1024
_LINE: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_NO_BODY: Final = (204, 304)
# The headers that decide where an answer ends; each may occur once.
_LENGTH, _CODING, _CONNECTION = b"content-length", b"transfer-encoding", b"connection"
_RETRY: Final = b"retry-after"
_READ: Final = frozenset({_LENGTH, _CODING, _CONNECTION, _RETRY})
_MAX_DIGITS: Final = 8
# RFC 9110 §5.6.2. Parsers disagree about names with other characters.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# A bare CR or LF ends a line for some parsers; NUL ends the text for others.
_CONTROL: Final = re.compile(rb"[\r\n\x00]")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,%d})[ \t]*(?:;[^\r\n\x00]*)?\Z" % _MAX_DIGITS)


class NotUnderstood(Exception):
    """Ask again with a full client, and close this connection: its next bytes are unusable."""


class TooLong(Exception):
    """Refuse the answer: it is longer than any that the contract allows."""


class Answer(NamedTuple):
    """A complete answer. Unless `kept`, the server closes the connection after it."""

    status: int
    body: bytes
    kept: bool
    retry_after: str


def answer(data: bytes, limit_bytes: int) -> Answer | None:
    """Return the answer in `data`, or None while it is incomplete.

    Raises NotUnderstood, and TooLong for a body of more than `limit_bytes` or one without an end.
    """
    complete = _answer(data, limit_bytes)
    if complete is None and len(data) > longest(limit_bytes):
        raise TooLong
    return complete


def longest(limit_bytes: int) -> int:
    """Return the most bytes that a complete answer may take; chunks take more than the body."""
    return 2 * (_HEAD_LIMIT_BYTES + limit_bytes)


def _answer(data: bytes, limit_bytes: int) -> Answer | None:
    head, end, _ = data.partition(_END)
    if not end:
        if len(data) > _HEAD_LIMIT_BYTES:
            raise NotUnderstood
        return None
    status_line, *lines = head.split(_LINE)
    status = _status(status_line)
    fields = _fields(lines)
    body = _body(status, fields, data[len(head) + len(_END) :], limit_bytes)
    if body is None:
        return None
    keeps_open = b"close" not in re.split(rb"[ \t]*,[ \t]*", fields.get(_CONNECTION, b"").lower())
    return Answer(status, body, keeps_open, fields.get(_RETRY, b"").decode("latin-1"))


def _status(line: bytes) -> int:
    version, _, text = line.partition(b" ")
    if version != b"HTTP/1.1" or not text[:3].isdigit() or text[3:4] not in (b" ", b""):
        raise NotUnderstood
    if _CONTROL.search(text):
        raise NotUnderstood
    status = int(text[:3])
    if status < 200:  # another answer follows
        raise NotUnderstood
    return status


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or name in fields or not _TOKEN.match(name) or _CONTROL.search(value):
            raise NotUnderstood
        if name in _READ:
            fields[name] = value.strip(b" \t")
    return fields


def _body(
    status: int, fields: dict[bytes, bytes], content: bytes, limit_bytes: int
) -> bytes | None:
    coding, length = fields.get(_CODING), fields.get(_LENGTH)
    if status in _NO_BODY and coding is None:
        return _fixed_body(content, 0)
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None or status in _NO_BODY:
            raise NotUnderstood
        return _chunked_body(content, limit_bytes)
    if length is None or not length.isdigit() or len(length) > _MAX_DIGITS:
        raise NotUnderstood
    if int(length) > limit_bytes:
        raise TooLong
    return _fixed_body(content, int(length))


def _fixed_body(content: bytes, length: int) -> bytes | None:
    if len(content) > length:
        raise NotUnderstood
    return content if len(content) == length else None


def _chunked_body(content: bytes, limit_bytes: int) -> bytes | None:
    """Join the chunks; None while one is missing. Trailers are refused."""
    body, offset = b"", 0
    while True:
        end = content.find(_LINE, offset)
        if end < 0:
            return None
        size = _size(content[offset:end])
        begin, offset = end + len(_LINE), end + 2 * len(_LINE) + size
        if len(body) + size > limit_bytes:
            raise TooLong
        if len(content) < offset:
            return None
        if content[offset - len(_LINE) : offset] != _LINE or (size == 0 and len(content) > offset):
            raise NotUnderstood
        if size == 0:
            return body
        body += content[begin : begin + size]


def _size(line: bytes) -> int:
    size = _SIZE.match(line)
    if size is None:
        raise NotUnderstood
    return int(size[1], 16)
