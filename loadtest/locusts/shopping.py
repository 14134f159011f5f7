"""Journeys of those who buy."""

from loadtest.locusts.journey import Journey, View

# Whoever still waits then is told by mail how it ended; the books are checked after the run.
_PATIENCE_S = 8.0
_ORDERS = 3


def shop(journey: Journey) -> None:
    """Buy a few things, see each to its end, read one again, look at the list, walk its pages."""
    bought: list[int] = []
    for _ in range(_ORDERS):
        order_id = _buy(journey, _PATIENCE_S)
        bought += [order_id] if order_id is not None else []
        if journey.closing():
            return
    if not bought:
        return
    journey.look("read", bought[0])
    path = f"/api/orders/user/{journey.user}?pageSize=20"
    reply = journey.get("list", path)
    if reply.status == 200 and _ids(reply.decode(list[View])) != bought[::-1]:
        journey.client.wrong("list", "not what was bought")
    walked = walk(journey, f"/api/orders/user/{journey.user}?pageSize=2")
    if walked is not None and walked != bought[::-1]:
        journey.client.wrong("walk", "not what was bought")


def buy_and_watch(journey: Journey) -> None:
    """Buy one thing and see it to its end."""
    _buy(journey, _PATIENCE_S)


def buy_and_leave(journey: Journey) -> None:
    """Buy one thing and go."""
    _buy(journey, 0)


def walk(journey: Journey, path: str | None) -> list[int] | None:
    """Follow the cursor to the end of the list; None when a page was not given."""
    seen: list[int] = []
    while path:
        reply = journey.get("walk", path)
        if reply.status != 200:
            return None
        seen += _ids(reply.decode(list[View]))
        path = next_page(reply.headers.get("Link", ""))
    return seen


def next_page(link: str) -> str | None:
    """Read the path of the next page out of a Link field (RFC 8288)."""
    for one in link.split(","):
        target, _, parameters = one.strip().partition(";")
        if 'rel="next"' in parameters:
            return target.strip("<>")
    return None


def _buy(journey: Journey, patience_s: float) -> int | None:
    purchase = journey.purchase()
    try:
        order_id = journey.buy(purchase)
        if order_id is not None:
            journey.watch(purchase, order_id, patience_s)
        return order_id
    finally:
        journey.settle(purchase)


def _ids(views: list[View]) -> list[int]:
    return [view.id for view in views]
