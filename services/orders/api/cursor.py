"""List cursors: the position of a row, sealed for one user. Pure; the key is an argument."""

import base64
import datetime as dt
import hmac
import re
import struct
from typing import Final

from orders.database.orders import Position

_VERSION: Final = 1
_POSITION: Final = struct.Struct(">Bqq")  # version, microseconds since 1970, order id
_SEAL_BYTES: Final = 16
# 33 bytes are 44 characters without padding or spare bits: one position has one spelling.
PATTERN: Final = r"^[A-Za-z0-9_-]{44}\Z"
_SHAPE: Final = re.compile(PATTERN)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


class InvalidCursor(ValueError):
    """Take a cursor from a Link header of the same user's list, and leave it as it is."""


def seal(position: Position, user_id: int, key: bytes) -> str:
    """Return the cursor that leads behind `position` in the list of `user_id`."""
    micros = (position.created_at - _EPOCH) // _MICROSECOND
    payload = _POSITION.pack(_VERSION, micros, position.order_id)
    return base64.urlsafe_b64encode(payload + _mac(payload, user_id, key)).decode("ascii")


def is_well_formed(cursor: str) -> bool:
    """Tell whether it has the form of a cursor, whoever made it."""
    return _SHAPE.match(cursor) is not None


def unseal(cursor: str, user_id: int, *keys: bytes) -> Position:
    """Return the position in a cursor.

    Raises InvalidCursor unless `seal` made it for this user, with one of the keys.
    """
    if not is_well_formed(cursor):
        raise InvalidCursor
    raw = base64.urlsafe_b64decode(cursor)
    payload, mac = raw[: _POSITION.size], raw[_POSITION.size :]
    if not any(hmac.compare_digest(mac, _mac(payload, user_id, key)) for key in keys):
        raise InvalidCursor
    _, micros, order_id = _POSITION.unpack(payload)
    return Position(_EPOCH + micros * _MICROSECOND, order_id)


def _mac(payload: bytes, user_id: int, key: bytes) -> bytes:
    return hmac.digest(key, b"orders.cursor\0%d\0" % user_id + payload, "sha256")[:_SEAL_BYTES]
