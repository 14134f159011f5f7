"""The failpoints: named places in the service at which a process can be made to end or to wait.

The service knows nothing of them. `torture/hook/sitecustomize.py` wraps the functions of this table
when a process starts with ORDERS_FAILPOINTS; without that variable nothing is imported, wrapped or
asked.
"""

from typing import Final, NamedTuple

BEFORE: Final = "before"
AFTER: Final = "after"
EXIT: Final = "exit"
SLEEP: Final = "sleep"
DAWDLE: Final = "dawdle"
# Longer than a reader takes to fetch, shorter than a fetched order may wait to be cached.
SLEEP_S: Final = 0.6
# The file of this name has a process dawdle at all points.
EVERYWHERE: Final = "everywhere"
# Added to the name of the file of a point at which a process ended.
ACTED: Final = ".acted"


class Point(NamedTuple):
    """The place of a failpoint: before or after a method of the service, in which processes."""

    target: str  # "module:Class.method"
    when: str
    kinds: tuple[str, ...]


_WRITERS: Final = ("api", "worker")
POINTS: Final[dict[str, Point]] = {
    # api
    "accept.committed": Point("orders.database.orders:Orders.accept", AFTER, ("api",)),
    "cancel.committed": Point(
        "orders.database.cancellations:Cancellations.cancel", AFTER, ("api",)
    ),
    "refund.asked": Point("orders.database.refund_requests:RefundRequests.add", AFTER, ("api",)),
    "order.fetched": Point("orders.cache.orders:OrderCache._fill", BEFORE, ("api",)),
    "commit.uncached": Point("orders.cache.orders:OrderCache.put", BEFORE, _WRITERS),
    "cached.unanswered": Point("orders.cache.orders:OrderCache.put", AFTER, ("api",)),
    # relay
    "outbox.read": Point("orders.relay.outbox:Outbox.take", AFTER, ("relay",)),
    "published": Point("orders.messaging.publisher:Publisher.publish", AFTER, ("relay",)),
    "confirmed": Point("orders.relay.window:RowsUnderWay.settled", AFTER, ("relay",)),
    "undeleted": Point("orders.relay.outbox:Outbox.delete", BEFORE, ("relay",)),
    "deleted": Point("orders.relay.outbox:Outbox.delete", AFTER, ("relay",)),
    # worker
    "work.loaded": Point("orders.database.progress:Progress.load", AFTER, ("worker",)),
    "reserved": Point("orders.upstream.inventory:Inventory.reserve", AFTER, ("worker",)),
    "captured": Point("orders.upstream.payment:Payment.capture", AFTER, ("worker",)),
    "refunded": Point("orders.upstream.payment:Payment.refund", AFTER, ("worker",)),
    "stock.committed": Point("orders.upstream.inventory:Inventory.commit", AFTER, ("worker",)),
    "stock.released": Point("orders.upstream.inventory:Inventory.release", AFTER, ("worker",)),
    "stock.returned": Point("orders.upstream.inventory:Inventory.give_back", AFTER, ("worker",)),
    "advanced": Point("orders.database.progress:Progress.advance", AFTER, ("worker",)),
    "refund.started": Point("orders.database.progress:Progress.start_refund", AFTER, ("worker",)),
    "stock.noted": Point("orders.database.progress:Progress.settle_stock", AFTER, ("worker",)),
    # worker, orders in sets
    "set.uncached": Point("orders.cache.orders:OrderCache.put_all", BEFORE, ("worker",)),
    "set.loaded": Point("orders.database.progress:ProgressSets.load", AFTER, ("worker",)),
    "set.answered": Point("orders.upstream.parallel:ParallelCalls.wait", AFTER, ("worker",)),
    "set.advanced": Point("orders.database.progress:ProgressSets.advance", AFTER, ("worker",)),
    "set.settled": Point("orders.database.progress:ProgressSets.settle", AFTER, ("worker",)),
    "set.unacknowledged": Point("orders.messaging.sets:Sets.done", BEFORE, ("worker",)),
    # worker and notifier
    "unacknowledged": Point(
        "orders.messaging.handling:Handling.handle", AFTER, ("worker", "notifier")
    ),
    "copied": Point("orders.messaging.handling:Handling._publish_copy", AFTER, ("worker",)),
    # notifier
    "claimed": Point("orders.database.notifications:Notifications.claim", AFTER, ("notifier",)),
    "sent": Point("orders.notifier.delivery:WebhookSender._post", AFTER, ("notifier",)),
    "settled": Point("orders.database.notifications:Notifications.settle", AFTER, ("notifier",)),
}
