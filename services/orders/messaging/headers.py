"""Which headers of a delivery a copy of it may carry."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from pika import data

# A header frame cannot be split: one larger than the broker's frames (128 KiB by default) ends the
# connection of whoever publishes it. Our own headers need less than 1 KiB.
LARGEST_BYTES: Final = 16_384
_LONGEST_TEXT: Final = 300


def portable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers as AMQP can carry them, the small ones first if not all fit.

    A value that cannot be encoded (a float, say) becomes text.
    """
    sized = [(*_encodable(name, value), name) for name, value in headers.items()]
    portable_headers, room_bytes = {}, LARGEST_BYTES
    for size, value, name in sorted(sized, key=lambda entry: entry[0]):
        room_bytes -= size
        if room_bytes < 0:
            break
        portable_headers[name] = value
    return portable_headers


def _encodable(name: str, value: Any) -> tuple[int, Any]:
    """Return the size of an entry in bytes, and its value or the value's text."""
    with contextlib.suppress(Exception):  # pika has no class for what it cannot encode
        return data.encode_table([], {name: value}), value
    text = str(value)[:_LONGEST_TEXT]
    return data.encode_table([], {name: text}), text
