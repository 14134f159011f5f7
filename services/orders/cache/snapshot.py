"""An order as the cache holds it: the finished answer, and the little that decides about it."""

import msgspec


class CachedOrder(msgspec.Struct, frozen=True, gc=False):
    """One version of an order; `body` is the JSON answer, ready to send.

    `terminal` says that no transition is expected any more: it is kept longer.
    """

    id: int
    owner_id: int
    version: int
    terminal: bool
    body: bytes


def encode(order: CachedOrder) -> bytes:
    """Return what Redis stores: `version owner terminal body`; the Lua script reads the version."""
    return b"%d %d %d %b" % (order.version, order.owner_id, order.terminal, order.body)


def decode(order_id: int, stored: bytes) -> CachedOrder | None:
    """Return the snapshot, or None when the value is not one: it counts as a miss."""
    try:
        version, owner_id, terminal, body = stored.split(b" ", 3)
        return CachedOrder(order_id, int(owner_id), int(version), terminal == b"1", body)
    except ValueError:
        return None
