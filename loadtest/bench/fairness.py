"""Measures how a customer with thousands of waiting orders delays the others.

    python -m loadtest.bench.fairness
    python -m loadtest.bench.fairness --inventory-ms 20 --payment-ms 80
    python -m loadtest.bench.fairness --before ../older-checkout

Twenty customers place an order a second each, through the api. In turns there is nobody else, or
one customer more with thousands of waiting orders, with and without turns in the relay. It prints
how long the orders of the twenty took while those of the other waited: from their commit to that of
Completed, by PostgreSQL's clock. It also prints how many orders were completed a second. Then it
measures 10,000 orders of one customer, with nobody else. Relay and worker of another checkout take
part with `--before`.
"""

import argparse
import contextlib
import http.client
import math
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from devstack.state import remove
from loadtest.bench import queues
from loadtest.bench.data import Database
from loadtest.bench.generators import BenchFailed
from loadtest.bench.pairs import ratio, spread, turns
from loadtest.bench.testbed import BEFORE, HOST, RunPlan, Testbed, until
from orderservice_topology.topology import PROCESSING

CUSTOMERS: Final = 20
FIRST: Final = 101  # their ids follow one another
HOT: Final = 1
ALONE: Final = "nobody else"
AT_ONCE: Final = "no turns"
INVENTORY, PAYMENT = "inventory-slow", "payment-slow"
_WAVES: Final = (
    ("postgres", "valkey", INVENTORY, "rabbitmq-epmd"),
    ("rabbitmq", PAYMENT, "migrate"),
    ("topology",),
    ("api",),
)
_WARM_S: Final = 5.0  # the relay measures the time per order
_ALONE_S: Final = 8.0
_WITHIN_S: Final = 300.0


class Variant(NamedTuple):
    """A relay and a worker, and whether the large customer has orders."""

    relay: str
    worker: str
    is_hot: bool


class Slice(NamedTuple):
    """The twenty customers' times in milliseconds, the rate of all orders, the crowd's share."""

    p50_ms: float
    p95_ms: float
    orders: int
    rate: float
    share: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 done."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _testbed(options) as testbed:
        variants = _variants(testbed, options.under_way)
        slices: dict[str, list[Slice]] = {label: [] for label in variants}
        database = Database(testbed.database_url)
        for number, label in turns(list(variants), options.rounds):
            variant = variants[label]
            hot = options.orders if variant.is_hot else 0
            sample = _slice(testbed, database, variant, hot)
            slices[label].append(sample)
            load = os.getloadavg()[0]
            print(f"round {number + 1}, load {load:.1f}: {label}: {_words(sample)}", flush=True)
        drains = {
            label: _drained_s(testbed, database, variant, options.drain)
            for label, variant in variants.items()
            if variant.is_hot and options.drain
        }
        database.close()
    _show(slices)
    for label, took_s in drains.items():
        rate = options.drain / took_s
        print(f"{label}: {options.drain} orders in {took_s:.1f} s, {rate:.0f} a second")
    return 0


@contextlib.contextmanager
def _testbed(options: argparse.Namespace) -> Iterator[Testbed]:
    folder = Path(tempfile.mkdtemp(prefix="fairness-"))
    folder.chmod(0o755)
    data = folder / "data"
    plan = RunPlan(seconds=1, connections=CUSTOMERS, processes=2)
    try:
        with Testbed(data, plan, options.before) as testbed:
            testbed.vary("inventory", INVENTORY, {"LIGHT_LATENCY_MS": str(options.inventory_ms)})
            testbed.vary("payment", PAYMENT, {"LIGHT_LATENCY_MS": str(options.payment_ms)})
            for wave in _WAVES:
                testbed.start(*wave)
                if "migrate" in wave:
                    database = Database(testbed.database_url)
                    database.seed()
                    database.close()
            yield testbed
    finally:
        remove(data)
        folder.rmdir()


def _variants(testbed: Testbed, limits: Sequence[str]) -> dict[str, Variant]:
    """Return the variants: each number of orders in progress, in each checkout."""
    testbed.vary("relay", "relay-0", {"ORDERS_RELAY_UNDER_WAY": "0"})
    variants = {
        ALONE: Variant("relay-0", "worker", is_hot=False),
        AT_ONCE: Variant("relay-0", "worker", is_hot=True),
    }
    for version in ("", BEFORE) if testbed.compares else ("",):
        for limit in limits:
            relay = f"relay-{limit}{version}"
            testbed.vary(f"relay{version}", relay, {"ORDERS_RELAY_UNDER_WAY": limit})
            variant = Variant(relay, f"worker{version}", is_hot=True)
            variants[f"{limit} under way{version}"] = variant
    return variants


def _slice(testbed: Testbed, database: Database, variant: Variant, hot: int) -> Slice:
    """Place orders of the twenty customers while `hot` orders of another customer wait."""
    with _relaying(testbed, database, variant):
        with _placing(testbed.port("api")):
            time.sleep(_WARM_S)
            newest = database.newest()
            if hot:
                took_s = _completed_s(database, hot)
            else:
                took_s = _ALONE_S
                time.sleep(took_s)
            last = database.newest()
            share = _relay_gauge(testbed, "outbox_crowd_share")
        until(partial(database.all_settled, newest + 1, last), _WITHIN_S, 0.1)
    times_ms = [1000 * time_s for time_s in database.completions_s(newest, last, excluded_id=HOT)]
    cuts = statistics.quantiles(times_ms, n=20)
    return Slice(cuts[9], cuts[18], len(times_ms), (len(times_ms) + hot) / took_s, share)


def _drained_s(testbed: Testbed, database: Database, variant: Variant, orders: int) -> float:
    """Return the seconds that a customer's orders take without other orders."""
    with _relaying(testbed, database, variant):
        return _completed_s(database, orders)


@contextlib.contextmanager
def _relaying(testbed: Testbed, database: Database, variant: Variant) -> Iterator[None]:
    database.empty_outbox()
    queues.purge(testbed.amqp_url)
    testbed.start(variant.worker, variant.relay)
    try:
        until(partial(_sees_a_worker, testbed), _WITHIN_S)
        yield
    finally:
        testbed.stop(variant.relay)
        testbed.stop(variant.worker)


def _completed_s(database: Database, orders: int) -> float:
    database.add_waiting(orders, HOT)
    began_s = time.monotonic()
    until(partial(database.has_none_waiting, HOT), _WITHIN_S, 0.1)
    return time.monotonic() - began_s


def _sees_a_worker(testbed: Testbed) -> bool:
    """Return whether the relay has learned from the broker that a consumer exists."""
    return _relay_gauge(testbed, f'messaging_queue_consumers{{queue="{PROCESSING}"}}') == 1


def _relay_gauge(testbed: Testbed, series: str) -> float:
    """Return the value of one of the relay's metrics; NaN if it has none."""
    connection = http.client.HTTPConnection(HOST, testbed.port("relay_admin"), timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    values = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
    return float(values[0]) if values else math.nan


@contextlib.contextmanager
def _placing(port: int) -> Iterator[None]:
    """Place an order a second for each of the twenty during the block, spread over the second."""
    ending, failures = threading.Event(), list[str]()
    threads = [
        threading.Thread(target=_place, args=(port, number, ending, failures), daemon=True)
        for number in range(CUSTOMERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    if failures:
        raise BenchFailed(failures[0])


def _place(port: int, number: int, ending: threading.Event, failures: list[str]) -> None:
    order = {
        "userId": FIRST + number, "productId": 1, "quantity": 1, "total": 9.90,
        "paymentMethod": "card",
    }  # fmt: skip
    body, headers = msgspec.json.encode(order), {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    due_s = time.monotonic() + number / CUSTOMERS
    while not ending.wait(max(0.0, due_s - time.monotonic())):
        connection.request("POST", "/api/orders", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.ACCEPTED:
            failures.append(f"POST was answered {answer.status}: {text[:200]!r}")
            return
        due_s += 1
    connection.close()


def _words(sample: Slice) -> str:
    return (
        f"p50 {sample.p50_ms:.0f} ms, p95 {sample.p95_ms:.0f} ms of {sample.orders} orders;"
        f" {sample.rate:.0f} orders a second in all, share {sample.share:.2f} at the end"
    )


def _show(slices: Mapping[str, Sequence[Slice]]) -> None:
    baseline = slices[ALONE]
    print("\n| | p50 ms | p95 ms | p50 / nobody else | p95 / nobody else | orders a second |")
    print("|---|---:|---:|---:|---:|---:|")
    for label, samples in slices.items():
        ratios = [
            ratio(
                [getattr(sample, name) for sample in samples],
                [getattr(sample, name) for sample in baseline],
            )
            for name in ("p50_ms", "p95_ms")
        ]
        spans = " | ".join(
            f"{bounds.median:.2f} ({bounds.low:.2f} to {bounds.high:.2f})" for bounds in ratios
        )
        p50, p95, rate = (
            spread([getattr(sample, name) for sample in samples]).median
            for name in ("p50_ms", "p95_ms", "rate")
        )
        print(f"| {label} | {p50:.0f} | {p95:.0f} | {spans} | {rate:.0f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench.fairness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=4, help="[4]")
    parser.add_argument("--orders", type=int, default=3000, help="that wait of one customer [3000]")
    parser.add_argument(
        "--under-way", default=["80"], type=lambda text: text.split(","),
        help="values of ORDERS_RELAY_UNDER_WAY, by comma [80]",
    )  # fmt: skip
    parser.add_argument(
        "--inventory-ms", type=float, default=0, help="what a call of Inventory takes [0]"
    )
    parser.add_argument(
        "--payment-ms", type=float, default=0, help="what a call of Payment takes [0]"
    )
    parser.add_argument("--before", type=Path, help="another checkout, whose services take part")
    parser.add_argument(
        "--drain",
        type=int,
        default=10_000,
        help="orders of one customer with nobody else; 0: none [10000]",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
