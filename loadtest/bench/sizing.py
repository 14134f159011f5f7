"""Calculates the size of an installation for a rate of orders from a run. Pure.

`make bench ARGS=--document` writes the result into docs/scaling.md.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from loadtest.bench.results import BenchReport
from loadtest.bench.table import Sheet

# The sizes cannot be calculated from a run that lacks one of them.
NEEDED: Final = frozenset({"post", "get", "list", "relay", "worker", "whole"})
RATES: Final = (1_000, 10_000, 100_000)

# Assumptions: change them to those of your installation.
USE: Final = 0.6  # of a core, so that a lost node and a peak fit
GETS: Final = 10  # per order: its customer polls until it ends
LISTS: Final = 1
POD_PROCESSES: Final = 4  # of the api
POD_CORES: Final = 2
INVENTORY_MS: Final = 20
PRIMARY_CORES: Final = 32  # of a large server
CORE_PRICE: Final = 30  # a month
TERABYTE_PRICE: Final = 100  # a month
# Properties of the service.
CALLS_AT_ONCE: Final = 16  # ORDERS_UPSTREAM_CONCURRENCY
CALLS: Final = 2  # of an order to Inventory
MESSAGES: Final = 2  # of an order
# Measured by hand on 2026-11-29 over 1,000 POSTs and 1,500 orders in sets of 50, from
# pg_current_wal_insert_lsn(), with full_page_writes off and without the relay's part.
WAL_BYTES: Final = 1_190 + 4_900
API_CONNECTIONS: Final = 2 * POD_PROCESSES + 1  # two a process at a time, one for the probes
WORKER_CONNECTIONS: Final = 12  # ten threads, sets, the probe
OTHER_CONNECTIONS: Final = 2 * 2 + 2 * 4  # two relays, two notifiers

_DAY_S: Final = 86_400


class Costs(NamedTuple):
    """CPU of one order in microseconds, and rates of one process."""

    post: float
    get: float
    list: float
    worker: float
    relay: float
    postgres: float
    rabbitmq: float
    valkey: float
    worker_rate: float
    relay_rate: float
    broker_rate: float

    @property
    def api(self) -> float:
        """Return the CPU of all requests of an order in api and gateway."""
        return self.post + GETS * self.get + LISTS * self.list

    @property
    def total(self) -> float:
        """Return the CPU of an order, with a replica that uses as much as the primary."""
        servers = 2 * self.postgres + self.rabbitmq + self.valkey
        return self.api + self.worker + self.relay + servers


def costs(report: BenchReport) -> Costs:
    """Take the costs from a run. Raises KeyError if it lacks a subject."""
    subjects = {subject.name: subject for subject in report.subjects}
    order_path = subjects["whole"].cpu_us("straight")
    posts, gets, lists = (subjects[name].cpu_us("gateway") for name in ("post", "get", "list"))
    relay = subjects["relay"]
    return Costs(
        post=order_path["api"] + posts["gateway"],
        get=gets["api"] + gets["gateway"],
        list=lists["api"] + lists["gateway"],
        worker=order_path["worker"],
        relay=order_path["relay"],
        postgres=order_path["postgres"] + LISTS * lists["postgres"],
        rabbitmq=order_path["rabbitmq"],
        valkey=sum(
            times * by_role.get("valkey", 0.0)
            for times, by_role in ((1, order_path), (GETS, gets), (LISTS, lists))
        ),
        worker_rate=subjects["worker"].rate("worker").median,
        relay_rate=relay.rate("relay").median,
        broker_rate=relay.rate("broker").median,
    )


def sheets(report: BenchReport) -> list[Sheet]:
    """Return the tables of docs/scaling.md. Raises KeyError if the run lacks a subject."""
    unit_costs = costs(report)
    return [
        _assumed(),
        _measured(unit_costs),
        _rates(unit_costs),
        _sizes(unit_costs),
        _limits(unit_costs),
    ]


def _assumed() -> Sheet:
    rows: list[Sequence[str]] = [
        ("share of a core that is used", f"{USE:.0%}"),
        ("GETs and list pages of each order", f"{GETS} and {LISTS}"),
        ("an api pod: processes, cores", f"{POD_PROCESSES}, {POD_CORES}"),
        ("a call of Inventory, where it is slow", f"{INVENTORY_MS} ms"),
        ("calls at a time of a worker to Inventory", str(CALLS_AT_ONCE)),
        ("cores of a large primary", str(PRIMARY_CORES)),
        ("WAL of an order (by hand, 2026-11-29)", f"{WAL_BYTES:,} bytes"),
        ("a core, a month", str(CORE_PRICE)),
        ("a terabyte of disk, a month", str(TERABYTE_PRICE)),
    ]
    return Sheet("Assumptions", ("what", "figure"), rows, names=1)


def _measured(cost: Costs) -> Sheet:
    rows: list[Sequence[str]] = [
        ("api pod: POST", "api of whole, gateway of post", _us(cost.post)),
        (f"api pod: {GETS} hot GETs", "api and gateway of get", _us(GETS * cost.get)),
        (f"api pod: {LISTS} list", "api and gateway of list", _us(LISTS * cost.list)),
        ("worker", "whole", _us(cost.worker)),
        ("relay", "whole", _us(cost.relay)),
        ("PostgreSQL", "whole, and list", _us(cost.postgres)),
        ("RabbitMQ", "whole", _us(cost.rabbitmq)),
        ("Valkey", "whole, get and list", _us(cost.valkey)),
        ("all, PostgreSQL twice for a replica", "the sum", _us(cost.total)),
    ]
    head = ("what", "subjects of the run", "CPU in µs")
    return Sheet("What one order costs", head, rows)


def _rates(cost: Costs) -> Sheet:
    rows: list[Sequence[str]] = [
        ("orders of one worker", f"{cost.worker_rate:,.0f}"),
        ("messages of one relay", f"{cost.relay_rate:,.0f}"),
        ("confirms of one broker", f"{cost.broker_rate:,.0f}"),
    ]
    return Sheet("What one process does a second", ("what", "a second"), rows, names=1)


def _sizes(cost: Costs) -> Sheet:
    def row(label: str, cells: Sequence[str]) -> Sequence[str]:
        return (label, *cells)

    def used(us: float) -> Sequence[str]:
        return [_few(_cores(rate, us)) for rate in RATES]

    rows = [
        row("api: cores", used(cost.api)),
        row("api: pods", [str(_pods(rate, cost)) for rate in RATES]),
        row("workers (processes)", [str(_workers(rate, cost)) for rate in RATES]),
        row(
            f"workers, Inventory takes {INVENTORY_MS} ms",
            [str(_workers(rate, cost, INVENTORY_MS)) for rate in RATES],
        ),
        row("workers: cores", used(cost.worker)),
        row(
            "relay: share of one relay's rate",
            [f"{rate * MESSAGES / cost.relay_rate:.0%}" for rate in RATES],
        ),
        row("PostgreSQL primary: cores", used(cost.postgres)),
        row("RabbitMQ: cores", used(cost.rabbitmq)),
        row(
            "RabbitMQ: share of what one broker confirmed",
            [f"{rate * MESSAGES / cost.broker_rate:.0%}" for rate in RATES],
        ),
        row("Valkey: cores (one thread each)", used(cost.valkey)),
        row("connections to PostgreSQL", [f"{_connections(rate, cost):,}" for rate in RATES]),
        row("WAL in MB/s", [_few(rate * WAL_BYTES / 1e6) for rate in RATES]),
        row("WAL of a day in TB", [_few(_day_tb(rate)) for rate in RATES]),
        row("cores in all, with one replica of PostgreSQL", used(cost.total)),
        row(
            "a month, cores and the WAL of a day", [f"{_money(rate, cost):,.0f}" for rate in RATES]
        ),
    ]
    return Sheet("Three sizes", ("what", *(f"{rate:,}/s" for rate in RATES)), rows, names=1)


def _limits(cost: Costs) -> Sheet:
    relay = cost.relay_rate * USE / MESSAGES
    longest_ms = 1000 * CALLS_AT_ONCE / CALLS / (cost.worker_rate * USE)
    rows: list[Sequence[str]] = [
        (f"one relay at {USE:.0%} of its rate", f"{relay:,.0f}/s"),
        (f"one thread of Valkey at {USE:.0%}", f"{USE / cost.valkey * 1e6:,.0f}/s"),
        (
            f"one broker at {USE:.0%} of its confirms",
            f"{cost.broker_rate * USE / MESSAGES:,.0f}/s",
        ),
        (
            f"a primary of {PRIMARY_CORES} cores at {USE:.0%}",
            f"{PRIMARY_CORES * USE / cost.postgres * 1e6:,.0f}/s",
        ),
        (
            f"installations for {RATES[-1]:,}/s, each with one relay",
            str(math.ceil(RATES[-1] / relay)),
        ),
        (
            "a call of Inventory that limits a worker before its CPU does, from",
            f"{longest_ms:.0f} ms",
        ),
    ]
    return Sheet("Limits", ("limit", "orders a second, or as named"), rows, names=1)


def _cores(rate: int, us: float) -> float:
    return rate * us / 1e6 / USE


def _pods(rate: int, cost: Costs) -> int:
    return math.ceil(_cores(rate, cost.api) / POD_CORES)


def _workers(rate: int, cost: Costs, latency_ms: float = 0) -> int:
    by_calls = rate * CALLS * latency_ms / 1000 / CALLS_AT_ONCE
    return math.ceil(max(rate / (cost.worker_rate * USE), by_calls))


def _connections(rate: int, cost: Costs) -> int:
    pods, workers = _pods(rate, cost), _workers(rate, cost)
    return pods * API_CONNECTIONS + workers * WORKER_CONNECTIONS + OTHER_CONNECTIONS


def _day_tb(rate: int) -> float:
    return rate * WAL_BYTES * _DAY_S / 1e12


def _money(rate: int, cost: Costs) -> float:
    return _cores(rate, cost.total) * CORE_PRICE + _day_tb(rate) * TERABYTE_PRICE


def _us(figure: float) -> str:
    return f"{figure:,.0f}"


def _few(figure: float) -> str:
    return f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}"
