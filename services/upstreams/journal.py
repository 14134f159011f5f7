"""The ledger as its owner lets others read it: page by page, in the order of the last change."""

import bisect
import datetime as dt
import secrets
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import falcon
import msgspec

from upstreams.web import MAX_ID, Refusal, answer

PAGE: Final = 200
LONGEST_PAGE: Final = 1000

K = TypeVar("K", bound=Hashable)


class Journal(Generic[K]):
    """When each entry last changed. An entry that changes moves to the end.

    Not thread-safe: its owner calls it under the lock that guards the entries.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything; cursors given out before are refused from now on."""
        self._id = secrets.token_hex(4)
        self._times: list[dt.datetime] = []
        self._keys: list[K] = []
        self._index: dict[K, int] = {}
        self._orders: dict[int, dict[K, None]] = {}

    def note(self, key: K, order_id: int) -> dt.datetime:
        """Note that an entry was made or changed, and return the moment: never before the last."""
        now = dt.datetime.now(dt.UTC)
        at = max(now, self._times[-1]) if self._times else now
        self._index[key] = len(self._keys)
        self._times.append(at)
        self._keys.append(key)
        self._orders.setdefault(order_id, {})[key] = None
        return at

    def of_order(self, order_id: int) -> list[K]:
        """Return the keys of an order's entries, oldest first."""
        return sorted(self._orders.get(order_id, ()), key=self._index.__getitem__)

    def page(
        self, since: dt.datetime | None, cursor: str | None, limit: int
    ) -> tuple[list[K], str | None]:
        """Return up to `limit` keys, and the cursor of the next page; None at the end."""
        if cursor is not None:
            index = self._after(cursor)
        else:
            index = 0 if since is None else bisect.bisect_left(self._times, since)
        keys: list[K] = []
        while index < len(self._keys) and len(keys) < limit:
            if self._index[self._keys[index]] == index:  # else it changed again: it comes later
                keys.append(self._keys[index])
            index += 1
        return keys, f"{self._id}.{index}" if index < len(self._keys) else None

    def _after(self, cursor: str) -> int:
        name, _, index = cursor.partition(".")
        if name != self._id or not index.isdecimal() or int(index) > len(self._keys):
            raise Refusal(400, "invalid_cursor", "give the `next` of a page of this ledger")
        return int(index)


class Entries(msgspec.Struct, frozen=True):
    """One page; `next` is the cursor of the page after it, null at the end."""

    entries: list[object]
    next: str | None


Read = Callable[[dt.datetime | None, str | None, int], Entries]


class EntriesResource:
    """`GET /payments` or `GET /reservations`: `?since=&cursor=&limit=`, or `?orderId=`."""

    def __init__(self, read_page: Read, of_order: Callable[[int], Entries]) -> None:
        self._read, self._of_order = read_page, of_order

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a page, oldest change first."""
        order_id = req.get_param_as_int("orderId", min_value=1, max_value=MAX_ID)
        if order_id is not None:
            answer(resp, self._of_order(order_id))
            return
        limit = req.get_param_as_int("limit", min_value=1, max_value=LONGEST_PAGE, default=PAGE)
        since, cursor = _moment(req.get_param("since")), req.get_param("cursor")
        answer(resp, self._read(since, cursor, limit))


def _moment(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        moment = msgspec.convert(text, dt.datetime)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid", "`since` is a date and time as in RFC 3339") from error
    if moment.tzinfo is None:
        raise Refusal(400, "invalid", "`since` needs an offset, as in 2026-11-29T12:00:00Z")
    return moment
