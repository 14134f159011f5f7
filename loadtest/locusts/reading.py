"""Journeys of readers: one reads too often, one reads deep pages."""

from typing import Final

from gevent.lock import BoundedSemaphore

from loadtest.locusts.journey import Journey, OrderView
from loadtest.locusts.shopping import next_page

HOT_CUSTOMER: Final = 7
_PAGE: Final = 20
# A cursor is valid for any page size, so large pages reach the deep page faster.
_STRIDE: Final = 100
_DEPTH: Final = 2000 * _PAGE

_deep: dict[int, str] = {}
_walking = BoundedSemaphore()


def read_one_order(journey: Journey) -> None:
    """Request one customer's list as often as the scenario's pace allows; refusals are expected."""
    journey.known_as(HOT_CUSTOMER)
    reply = journey.get("hot", f"/api/orders/user/{HOT_CUSTOMER}", (200, 429))
    if reply.status == 429 and not str(reply.headers.get("Retry-After", "")).isdigit():
        journey.client.wrong("hot", "no Retry-After")


def first_and_deep(journey: Journey) -> None:
    """Read the first page and page 2,000 of a customer with very many orders.

    The service's staff reads (scope `orders:admin`), each of them with a limit of their own.
    """
    seed = journey.run.scenario.seed
    if seed is None:
        raise ValueError("this kind of customer needs a scenario with a seed")
    with _walking:  # one user fetches the cursor, the others of this process wait for it
        deep = _deep.get(seed.customer) or _walk_down(journey, seed.customer)
    journey.headers = journey.as_staff()
    path = f"/api/orders/user/{seed.customer}?pageSize={_PAGE}"
    _page(journey, "first-page", path)
    _page(journey, "deep-page", deep)


def _walk_down(journey: Journey, customer: int) -> str:
    path = f"/api/orders/user/{customer}?pageSize={_STRIDE}"
    ids: set[int] = set()
    for _ in range(_DEPTH // _STRIDE):
        journey.headers = journey.as_staff()
        reply = journey.get("walk", path)
        views = reply.decode(list[OrderView])
        ids |= {view.id for view in views}
        path = next_page(str(reply.headers.get("Link", ""))) or ""
    if len(ids) != _DEPTH:
        journey.client.wrong("walk", "orders seen twice or not at all")
    _deep[customer] = path.replace(f"pageSize={_STRIDE}", f"pageSize={_PAGE}")
    return _deep[customer]


def _page(journey: Journey, name: str, path: str) -> None:
    reply = journey.get(name, path)
    if reply.status == 200 and len(reply.decode(list[OrderView])) != _PAGE:
        journey.client.wrong(name, "not a full page")
