"""The demo: places a stream of orders through the gateway and follows each to its end."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import urllib3
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

STATUSES = ("Pending", "Reserved", "Charging", "Completed", "Failed", "Cancelled", "Refunded")
TERMINAL = {"Completed", "Failed", "Cancelled", "Refunded"}
POLL_S = 0.25
# Each order has a user of its own: the limit is 100 requests a minute for each, polls included.
POLLS_PER_ORDER = 90
POSTERS = 16
SHOWN = 8
TIMEOUT = urllib3.Timeout(connect=3, read=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What to place: how many orders, how many a second, and which share is to fail."""

    url: str
    count: int
    rate: float
    decline_ratio: float
    timeout_s: float
    authority: Path | None = None  # authority that verifies a gateway with TLS; None: the machine's


class ListedOrder(msgspec.Struct, rename="camel"):
    """An order as the API shows it."""

    id: int | str
    status: str
    created_at: datetime
    updated_at: datetime | None = None
    status_reason: str = ""


@dataclass(slots=True)
class Order:
    """One order from its POST on; times in seconds."""

    user_id: int
    payment_method: str
    total_cents: int
    order_id: int | str = ""
    status: str = "waiting"
    reason: str = ""
    post_s: float = 0.0
    completion_s: float = 0.0
    placed_at: float = 0.0
    polls: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the API answered 202."""
        return self.order_id != ""

    @property
    def ended(self) -> bool:
        """Whether the order has reached its end."""
        return self.status in TERMINAL or self.status == "refused"


@dataclass(slots=True)
class Demo:
    """The orders of one run."""

    plan: DemoPlan
    orders: list[Order]
    http: urllib3.PoolManager = field(init=False)
    giving_up: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Open the pool of HTTP connections to the gateway."""
        authority = None if self.plan.authority is None else str(self.plan.authority)
        self.http = urllib3.PoolManager(maxsize=POSTERS + 4, retries=False, ca_certs=authority)

    def place(self, order: Order) -> None:
        """POST one order; if it is not accepted, keep the answer."""
        body = (
            f'{{"userId":{order.user_id},"productId":{101 + order.user_id % 50},"quantity":1,'
            f'"total":{order.total_cents / 100:.2f},"paymentMethod":"{order.payment_method}"}}'
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        start = order.placed_at = time.monotonic()
        try:
            url = f"{self.plan.url}/api/orders"
            answer = self.http.request("POST", url, body=body, headers=headers, timeout=TIMEOUT)
        except urllib3.exceptions.HTTPError as error:
            order.status, order.reason = "refused", str(error)
            return
        order.post_s = time.monotonic() - start
        result = msgspec.json.decode(answer.data)
        if answer.status == 202:
            order.order_id, order.status = result["orderId"], result["status"]
        else:
            order.status, order.reason = "refused", f"{answer.status} {result.get('error', '')}"

    def poll(self, order: Order) -> None:
        """Query one order; an answer that is not a list changes nothing."""
        url = f"{self.plan.url}/api/orders/user/{order.user_id}"
        order.polls += 1
        try:
            answer = self.http.request("GET", url, timeout=TIMEOUT)
        except urllib3.exceptions.HTTPError:
            return
        if answer.status != 200:
            return
        for view in msgspec.json.decode(answer.data, type=list[ListedOrder]):
            if view.id == order.order_id:
                note(order, view)

    def place_all(self) -> None:
        """POST at the planned rate."""
        start = time.monotonic()
        with ThreadPoolExecutor(POSTERS) as posters:
            for number, order in enumerate(self.orders):
                delay_s = start + number / self.plan.rate - time.monotonic()
                if self.giving_up.wait(max(0.0, delay_s)):
                    return
                posters.submit(self.place, order)

    def follow(self) -> Iterator[None]:
        """Poll all open orders until they have ended or run out of time; yield after each round."""
        with ThreadPoolExecutor(POSTERS) as readers:
            while not all(order.ended for order in self.orders) and not self.overdue():
                yield
                time.sleep(POLL_S)
                list(readers.map(self.poll, [order for order in self.orders if due(order)]))
        self.giving_up.set()
        yield

    def overdue(self) -> bool:
        """Return whether an order has taken longer than allowed."""
        now = time.monotonic()
        return any(
            order.placed_at and not order.ended and now - order.placed_at > self.plan.timeout_s
            for order in self.orders
        )


def note(order: Order, view: ListedOrder) -> None:
    """Copy the API's answer; the time to the end is by the service's clock."""
    order.status, order.reason = view.status, view.status_reason
    if order.ended:
        order.completion_s = (
            (view.updated_at or view.created_at) - view.created_at
        ).total_seconds()


def due(order: Order) -> bool:
    """Return whether to poll an order now: often at first, then more slowly."""
    age_s = time.monotonic() - order.placed_at
    limit = min(POLLS_PER_ORDER, 1 + int(age_s / POLL_S / (1 + age_s / 20)))
    return order.accepted and not order.ended and order.polls < limit


def run(plan: DemoPlan, console: Console) -> int:
    """Run the demo live on the terminal; 0 when every accepted order has ended."""
    demo = Demo(plan, make_orders(plan))
    placing = threading.Thread(target=demo.place_all, daemon=True)
    placing.start()
    try:
        show(demo, console)
    except KeyboardInterrupt:
        demo.giving_up.set()
        console.print("interrupted")
    placing.join()
    return summary(demo.orders, console)


def show(demo: Demo, console: Console) -> None:
    """Follow the orders, drawing a picture if the output is a terminal."""
    if not console.is_terminal:
        list(demo.follow())
        return
    with Live(console=console, refresh_per_second=8, transient=True) as display:
        for _ in demo.follow():
            display.update(picture(demo.orders))


def make_orders(plan: DemoPlan) -> list[Order]:
    """Return random orders; their users are numbers that other runs hardly use."""
    first = random.randrange(10**9, 10**12)  # noqa: S311 - not a secret
    declined = round(plan.count * plan.decline_ratio)
    methods = ["decline-demo"] * declined + ["card-demo"] * (plan.count - declined)
    random.shuffle(methods)
    return [
        Order(first + number, method, random.randrange(100, 50_000))  # noqa: S311
        for number, method in enumerate(methods)
    ]


def picture(orders: list[Order]) -> Group:
    """Return a picture of how many orders are in each status, with the latest ones."""
    counts = Counter(order.status for order in orders)
    totals = Table("status", "orders", box=None)
    for status in ("waiting", *STATUSES, "refused"):
        if counts[status]:
            totals.add_row(status, str(counts[status]))
    latest = Table("order", "user", "status", "reason", box=None)
    for order in [order for order in orders if order.accepted][-SHOWN:]:
        latest.add_row(str(order.order_id), str(order.user_id), order.status, order.reason)
    end_count = sum(order.ended for order in orders)
    return Group(ProgressBar(total=len(orders), completed=end_count, width=60), totals, "", latest)


def summary(orders: list[Order], console: Console) -> int:
    """Print totals and latencies; return the exit code."""
    acceptances = [order for order in orders if order.accepted]
    counts = Counter(f"{o.status} {o.reason}".strip() for o in orders if o.status != "waiting")
    totals = Table("outcome", "orders", title="orders", title_justify="left")
    for outcome, number in counts.most_common():
        totals.add_row(outcome, str(number))
    console.print(totals)
    console.print(latencies(acceptances))
    losses = [order for order in acceptances if not order.ended]
    refusals = sum(order.status == "refused" for order in orders)
    if losses:
        numbers = ", ".join(str(order.order_id) for order in losses[:20])
        console.print(f"[red]{len(losses)} accepted orders did not end: {numbers}[/red]")
    if refusals:
        console.print(f"[red]{refusals} orders were refused[/red]")
    return 1 if losses or refusals or len(acceptances) < len(orders) else 0


def latencies(acceptances: list[Order]) -> Table:
    """Return rows with percentiles of the POST and of the time from the 202 to the end."""
    table = Table("", "p50", "p95", "p99", "max", title="latency", title_justify="left")
    durations = [order.completion_s for order in acceptances if order.ended]
    for name, values in (("POST", [o.post_s for o in acceptances]), ("202 to the end", durations)):
        times = (f"{1000 * at(values, share):.0f} ms" for share in (50, 95, 99, 100))
        table.add_row(name, *(times if values else "----"))
    return table


def at(values: list[float], percent: int) -> float:
    """Return the value at a percentile (nearest rank); 0 when there is none."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * percent // 100) - 1)] if ranked else 0.0
