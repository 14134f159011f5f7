"""Orders that the worker brought to every end agree with the ledgers."""

from collections.abc import Iterator

import pytest

from devstack.ports import free_port
from integration.handles import Database
from integration.shop import Shop
from integration.world import World, empty_world
from orders import settings
from orders.database.pool import Pool
from orders.domain import events
from orders.errors import Transient
from upstreams.process import running


@pytest.fixture
def shop(database: Database) -> Iterator[Shop]:
    with running("inventory", free_port()) as stock, running("payment", free_port()) as till:
        shop = Shop(database, stock, till)
        shop.empty()
        yield shop
        shop.close()


@pytest.fixture
def world(database: Database, shop: Shop) -> Iterator[World]:
    environ = {"ORDERS_DATABASE_URL": database.url}
    pool = Pool(database.url, settings.load(settings.DatabaseSettings, environ), "test")
    pool.open()
    with empty_world(pool, shop.inventory, shop.payment) as world:
        yield world
    pool.close()


def test_every_end_of_an_order_is_clean_and_so_is_one_under_way(shop: Shop, world: World) -> None:
    completed, failed, refunded = world.order(), world.order(method="decline"), world.order()
    sold_out, cancelled = world.order(product_id=999_999), world.order()
    world.cancel(cancelled)
    for order_id in (completed, failed, refunded, sold_out, cancelled):
        world.handle(order_id)
    world.cancel(refunded)
    world.handle(refunded, events.REFUND_DUE)
    shop.payment.faults(dropReplyRatio=1)
    under_way = world.order()
    with pytest.raises(Transient):
        world.handle(under_way)
    shop.payment.faults()
    statuses = dict(shop.run("SELECT id, status FROM orders"))
    assert [statuses[o] for o in (completed, failed, refunded, sold_out, cancelled, under_way)] == [
        "Completed", "Failed", "Refunded", "Failed", "Cancelled", "Charging",
    ]  # fmt: skip
    shop.run("UPDATE orders SET created_at = now() - interval '5 minutes'")
    assert shop.reconcile() == (0, [])
    assert shop.reconcile("--full") == (0, [])
    world.handle(under_way)
    assert shop.reconcile("--full") == (0, [])
    story = shop.command("trace", str(refunded))[1]
    for text in ("Completed → Refunding", "Refunding → Refunded", "returned 2 × product 1"):
        assert text in story
