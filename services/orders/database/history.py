"""How an order came to be where it is."""

import datetime as dt

import msgspec

from orders.database.routing import Reads


class Entry(msgspec.Struct, frozen=True):
    """One transition; `reason` is a word of ours, or what the person who asked said."""

    before: str | None
    after: str
    reason: str | None
    actor: str
    at: dt.datetime
    trace_id: str | None


class History:
    """The transitions of orders."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def of(
        self, order_id: int, subject: str | None, *, everyones: bool, own_writes: bool
    ) -> list[Entry]:
        """Return an order's transitions, oldest first; none of an order that is somebody else's."""
        arguments = {"id": order_id, "subject": subject, "everyones": everyones}
        rows = self._reads.rows("list_history", arguments, own_writes=own_writes)
        if not rows and not own_writes:  # the replica may not have the order yet
            rows = self._reads.rows("list_history", arguments, own_writes=True)
        return [Entry(*row) for row in rows]
