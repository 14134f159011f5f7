"""Message properties as a stranger may write them: raw bytes after AMQP's grammar."""

import struct
import uuid

from pika import BasicProperties


def short_string(contents: bytes) -> bytes:
    return struct.pack(">B", len(contents)) + contents


def long_bytes(contents: bytes) -> bytes:
    return struct.pack(">L", len(contents)) + contents


def table(*entries: tuple[bytes, bytes]) -> bytes:
    """Encode a table of names and encoded values, its length included."""
    return long_bytes(b"".join(short_string(name) + value for name, value in entries))


def nested(depth: int) -> bytes:
    """Encode a value of so many tables in each other."""
    value = b"V"
    for _ in range(depth):
        value = b"F" + table((b"t", value))
    return value


class Raw(BasicProperties):  # type: ignore[misc] # pika has no types
    """Properties that pika sends as they are."""

    def __init__(self, encoded: bytes, message_id: str) -> None:
        super().__init__(message_id=message_id)
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        return [self._encoded]


def raw(headers: bytes, message_type: bytes = b"order.created.v1") -> Raw:
    """Make persistent properties with an encoded header table, an id and a type."""
    message_id = str(uuid.uuid4())
    flags = (
        BasicProperties.FLAG_HEADERS
        | BasicProperties.FLAG_DELIVERY_MODE
        | BasicProperties.FLAG_MESSAGE_ID
        | BasicProperties.FLAG_TYPE
    )
    encoded = struct.pack(">H", flags) + headers + b"\x02"
    encoded += short_string(message_id.encode()) + short_string(message_type)
    return Raw(encoded, message_id)


MILLISECONDS = struct.pack(">cQ", b"T", 1_790_000_000_000)
STRANGE = {
    "a timestamp in milliseconds": table((b"at", MILLISECONDS)),
    "the largest timestamp": table((b"at", b"T" + b"\xff" * 8)),
    "a large number": table((b"n", struct.pack(">cd", b"d", 1e300))),
    "a name that is not UTF-8": table((b"\xff\xfe", b"t\x01")),
    "text that is not UTF-8": table((b"n", b"S" + long_bytes(b"\xff\xfe"))),
    "a small decimal": table((b"n", struct.pack(">cBl", b"D", 255, -7))),
    "an x-death that is none": table((b"x-death", b"S" + long_bytes(b"yes"))),
    "100 KiB of text": table((b"n", b"S" + long_bytes(b"x" * 100_000))),
}
UNREADABLE = {"tables deeper than anybody recurses": table((b"n", nested(600)))}
# RabbitMQ 3.10 itself closes the connection of whoever publishes these: Erlang has no such numbers.
NOT_TAKEN = {
    "not a number": table((b"n", struct.pack(">cd", b"d", float("nan")))),
    "infinity": table((b"n", struct.pack(">cf", b"f", float("inf")))),
}
