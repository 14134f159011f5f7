"""Journeys of buyers."""

from loadtest.locusts.journey import Journey, OrderView
from loadtest.purchase import Purchase

# After that a customer stops polling. The books are checked after the run.
_PATIENCE_S = 8.0
_ORDERS = 3


def shop(journey: Journey) -> None:
    """Buy a few products, poll each order until it ends, read one again, then all list pages."""
    bought: list[Purchase] = []
    for _ in range(_ORDERS):
        purchase = _buy(journey, _PATIENCE_S)
        bought += [purchase] if purchase.order_ids else []
        if journey.closing():
            return
    if not bought:
        return
    journey.look("read", bought[0], bought[0].order_ids[0])
    path = f"/api/orders/user/{journey.user}?pageSize=20"
    reply = journey.get("list", path)
    if reply.status == 200 and not _are(reply.decode(list[OrderView]), bought):
        journey.client.wrong("list", "not what was bought")
    walked = walk(journey, f"/api/orders/user/{journey.user}?pageSize=2")
    if walked is not None and not _are(walked, bought):
        journey.client.wrong("walk", "not what was bought")


def buy_and_watch(journey: Journey) -> None:
    """Buy one product and wait until the order ends."""
    _buy(journey, _PATIENCE_S)


def buy_and_leave(journey: Journey) -> None:
    """Buy one product and do not wait."""
    _buy(journey, 0)


def walk(journey: Journey, path: str | None) -> list[OrderView] | None:
    """Follow the cursor to the end of the list; return None if a page failed."""
    views: list[OrderView] = []
    while path:
        reply = journey.get("walk", path)
        if reply.status != 200:
            return None
        views += reply.decode(list[OrderView])
        path = next_page(reply.headers.get("Link", ""))
    return views


def next_page(link: str) -> str | None:
    """Read the path of the next page out of a Link field (RFC 8288)."""
    for link_value in link.split(","):
        target, _, parameters = link_value.strip().partition(";")
        if 'rel="next"' in parameters:
            return target.strip("<>")
    return None


def _buy(journey: Journey, patience_s: float) -> Purchase:
    purchase = journey.purchase()
    try:
        order_id = journey.buy(purchase)
        if order_id is not None:
            journey.watch(purchase, order_id, patience_s)
        return purchase
    finally:
        journey.settle(purchase)


def _are(views: list[OrderView], bought: list[Purchase]) -> bool:
    """Return whether a list shows each purchase, the newest first, and nothing else."""
    return len(views) == len(bought) and all(
        view.is_of(purchase) for view, purchase in zip(views, reversed(bought), strict=True)
    )
