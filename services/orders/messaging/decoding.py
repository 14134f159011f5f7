"""Reads the properties of a message. Never raises, even for malformed bytes.

RabbitMQ passes properties on unchanged. pika decodes them in the connection's loop, where an error
(a timestamp in milliseconds, for example) ends the connection and all its deliveries. So our
connections read header frames with this module.
"""

import datetime as dt
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import pika.frame
from pika import BasicProperties, exceptions, spec

# Raw bytes of a header table that could not be read, kept for a person.
UNREADABLE: Final = "x-unreadable-headers"
_KEPT_BYTES: Final = 4096
# Deeper tables are refused, because the code that reads, copies and prints them recurses.
_DEEPEST: Final = 16
_SHORT_STRING_BYTES: Final = 255
LAST_SECOND: Final = 253_402_300_799  # of the year 9999, the last one in Python

_FRAME: Final = struct.Struct(">BHL")
_CONTENT: Final = struct.Struct(">HHQ")

Frame = tuple[int, pika.frame.Frame | None]


class ReceivedProperties(BasicProperties):  # type: ignore[misc] # pika has no types
    """The properties of a delivery; `fault` says why some could not be read, None if all were."""

    fault: str | None = None


class _Unreadable(Exception):
    """Do not read on: AMQP 0-9-1 does not allow these bytes, or they exceed our limits."""


def read_frame(buffer: bytes) -> Frame:
    """Return the length and the first frame of `buffer`; (0, None) while it is incomplete.

    Raises pika's InvalidFrameError for bytes that are no frame.
    """
    if buffer[:1] != bytes((spec.FRAME_HEADER,)):
        frame: Frame = pika.frame.decode_frame(buffer)
        return frame
    if len(buffer) < _FRAME.size:
        return 0, None
    _, channel, size = _FRAME.unpack_from(buffer)
    end = _FRAME.size + size + spec.FRAME_END_SIZE
    if end > len(buffer):
        return 0, None
    if buffer[end - 1] != spec.FRAME_END or size < _CONTENT.size:
        raise exceptions.InvalidFrameError("a header frame without its end or its fields")
    _, _, body_size = _CONTENT.unpack_from(buffer, _FRAME.size)
    data = buffer[_FRAME.size + _CONTENT.size : end - 1]
    return end, pika.frame.Header(channel, body_size, decode_properties(data))


def decode_properties(data: bytes) -> ReceivedProperties:
    """Decode the property flags and the property list of a content header. Never raises."""
    properties = ReceivedProperties()
    try:
        _fill(properties, _Reader(data))
    except _Unreadable as error:
        properties.fault = str(error)
    if properties.headers is not None:
        _read_headers(properties, properties.headers)
    return properties


def _fill(properties: ReceivedProperties, reader: "_Reader") -> None:
    flags = _flags(reader)
    for flag, name, read in _PROPERTIES:
        if flags & flag:
            setattr(properties, name, read(reader))


def _read_headers(properties: ReceivedProperties, raw: bytes) -> None:
    """Decode the header table last: if it is broken, the other properties are known."""
    try:
        properties.headers = _table(_Reader(raw), 0)
    except _Unreadable as error:
        properties.headers = {UNREADABLE: raw[:_KEPT_BYTES]}
        properties.fault = f"headers: {error}"


def _flags(reader: "_Reader") -> int:
    flags: int = reader.number("H")
    word = flags
    while word & 1:  # further words carry flags that AMQP 0-9-1 does not define
        word = reader.number("H")
    return flags


class _Reader:
    """Takes values off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._encoded, self._offset = data, 0

    @property
    def at_end(self) -> bool:
        return self._offset >= len(self._encoded)

    def take(self, length: int) -> bytes:
        end = self._offset + length
        if end > len(self._encoded):
            raise _Unreadable("cut short")
        piece = self._encoded[self._offset : end]
        self._offset = end
        return piece

    def number(self, kind: str) -> Any:
        """Take a number, `kind` as in `struct`."""
        form = ">" + kind
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def short_string(self) -> str:
        """Decode a short string to text that fits one again; escape bytes that are not UTF-8."""
        text = self.take(self.number("B")).decode(errors="backslashreplace")
        return text.encode()[:_SHORT_STRING_BYTES].decode(errors="ignore")

    def long_bytes(self) -> bytes:
        return self.take(self.number("L"))


def _table(reader: _Reader, depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    while not reader.at_end:
        name = reader.short_string()
        table[name] = _value(reader, depth)
    return table


def _array(reader: _Reader, depth: int) -> list[Any]:
    values = []
    while not reader.at_end:
        values.append(_value(reader, depth))
    return values


def _value(reader: _Reader, depth: int) -> Any:
    kind = reader.take(1)
    if kind in _NESTED:
        if depth >= _DEEPEST:
            raise _Unreadable(f"nested deeper than {_DEEPEST}")
        return _NESTED[kind](_Reader(reader.long_bytes()), depth + 1)
    if kind not in _SCALARS:
        raise _Unreadable("a value of an unknown type")
    return _SCALARS[kind](reader)


def _text(reader: _Reader) -> str | bytes:
    raw = reader.long_bytes()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _decimal(reader: _Reader) -> Decimal:
    scale, number = reader.number("B"), reader.number("l")
    return Decimal(number).scaleb(-scale)


def _moment(reader: _Reader) -> dt.datetime | int:
    """Read seconds since 1970; a value out of range (in milliseconds, say) stays a number."""
    number: int = reader.number("Q")
    return dt.datetime.fromtimestamp(number, dt.UTC) if number <= LAST_SECOND else number


def _number(kind: str) -> Callable[[_Reader], Any]:
    return lambda reader: reader.number(kind)


_NESTED: Final[dict[bytes, Callable[[_Reader, int], Any]]] = {b"F": _table, b"A": _array}
# RabbitMQ's types, which differ from those of the standard's text.
# Source: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
_SCALARS: Final[dict[bytes, Callable[[_Reader], Any]]] = {
    b"t": lambda reader: reader.number("B") != 0,
    b"b": _number("b"),
    b"B": _number("B"),
    b"s": _number("h"),
    b"U": _number("h"),
    b"u": _number("H"),
    b"I": _number("l"),
    b"i": _number("L"),
    b"l": _number("q"),
    b"L": _number("q"),
    b"f": _number("f"),
    b"d": _number("d"),
    b"D": _decimal,
    b"S": _text,
    b"x": _Reader.long_bytes,
    b"T": _moment,
    b"V": lambda _reader: None,
}
# In the order of the flags, which is the order on the wire.
_PROPERTIES: Final[tuple[tuple[int, str, Callable[[_Reader], Any]], ...]] = (
    (BasicProperties.FLAG_CONTENT_TYPE, "content_type", _Reader.short_string),
    (BasicProperties.FLAG_CONTENT_ENCODING, "content_encoding", _Reader.short_string),
    (BasicProperties.FLAG_HEADERS, "headers", _Reader.long_bytes),
    (BasicProperties.FLAG_DELIVERY_MODE, "delivery_mode", _number("B")),
    (BasicProperties.FLAG_PRIORITY, "priority", _number("B")),
    (BasicProperties.FLAG_CORRELATION_ID, "correlation_id", _Reader.short_string),
    (BasicProperties.FLAG_REPLY_TO, "reply_to", _Reader.short_string),
    (BasicProperties.FLAG_EXPIRATION, "expiration", _Reader.short_string),
    (BasicProperties.FLAG_MESSAGE_ID, "message_id", _Reader.short_string),
    (BasicProperties.FLAG_TIMESTAMP, "timestamp", _number("Q")),
    (BasicProperties.FLAG_TYPE, "type", _Reader.short_string),
    (BasicProperties.FLAG_USER_ID, "user_id", _Reader.short_string),
    (BasicProperties.FLAG_APP_ID, "app_id", _Reader.short_string),
    (BasicProperties.FLAG_CLUSTER_ID, "cluster_id", _Reader.short_string),
)
