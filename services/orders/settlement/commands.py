"""`orders reconcile`: its arguments, its wiring and its report."""

import argparse
import contextlib
import datetime as dt
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from orders import settings
from orders.database.leadership import RECONCILIATION, Leadership
from orders.database.pool import Pool
from orders.errors import OrdersError, SettingError
from orders.settings import DatabaseSettings, ReconcileSettings, UpstreamSettings
from orders.settlement.book import LISTED, Book
from orders.settlement.evidence import Witnesses
from orders.settlement.reconcile import BEGINNING, Reconciliation, Report, Start, first_since
from orders.telemetry import logs
from orders.upstream import ledgers
from orders.upstream.http import Upstream
from orders.upstream.policy import policy_of

CLEAN: Final = 0
COULD_NOT_RUN: Final = 1
VIOLATIONS: Final = 2

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN: Final = 50
_PATIENCE_S: Final = 2.0


def add_reconcile(verb: argparse.ArgumentParser) -> None:
    """Declare the options of `orders reconcile`."""
    where = verb.add_mutually_exclusive_group()
    where.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="compare what changed since then: 2h, 3d, or as in 2026-11-29T12:00:00Z; "
        "the next run goes on from where the last one without --since ended",
    )
    where.add_argument("--full", action="store_true", help="compare everything from the beginning")
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    verb.set_defaults(run=reconcile)


def reconcile(chosen: argparse.Namespace) -> int:
    """Run once; 0: nothing is wrong, 1: could not run, 2: violations."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the report
            logs.configure(settings.load(settings.LogSettings), "reconcile")
        report = _run(chosen)
    except OrdersError as error:  # settings included: 2 means violations here
        print(f"orders: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    _print(report, as_json=chosen.json)
    return VIOLATIONS if report.violations else CLEAN


def moment(text: str) -> dt.datetime:
    """Read a moment, or a time ago such as 90s, 2h or 3d."""
    if ago := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    with contextlib.suppress(ValueError):
        read = dt.datetime.fromisoformat(text)
        if read.tzinfo is not None:
            return read
    raise argparse.ArgumentTypeError("expected 2h, 3d, or as in 2026-11-29T12:00:00Z")


def _run(chosen: argparse.Namespace) -> Report:
    database = settings.load(DatabaseSettings)
    mine = settings.load(ReconcileSettings)
    leadership = Leadership(database.url, database, RECONCILIATION, "orders-reconcile")
    with opened(database) as pool, witnesses(pool) as asked, contextlib.closing(leadership):
        _wait_for(leadership)
        book = Book(pool)
        return Reconciliation(book, asked, mine).run(_start(chosen, book))


def _wait_for(leadership: Leadership) -> None:
    """Be the only one; the lock of a run that has just ended is free a moment later."""
    until_s = time.monotonic() + _PATIENCE_S
    while not leadership.held():
        if time.monotonic() > until_s:
            raise OrdersError("another reconciliation is running: wait for its end")
        time.sleep(0.1)


def _start(chosen: argparse.Namespace, book: Book) -> Start | None:
    if chosen.full:
        return BEGINNING
    if chosen.since is None:
        return None
    return Start(chosen.since, chosen.since, first_since(book, chosen.since))


@contextlib.contextmanager
def opened(database: DatabaseSettings) -> Iterator[Pool]:
    """Open a connection for a command."""
    one = msgspec.structs.replace(database, pool_size=1)
    pool = Pool(database.url, one, "orders-command")
    pool.open()
    try:
        yield pool
    finally:
        pool.close()


@contextlib.contextmanager
def witnesses(pool: Pool, environ: Mapping[str, str] | None = None) -> Iterator[Witnesses]:
    """Open the ledgers of both upstreams. Raises SettingError when an address is not set."""
    upstreams = settings.load(UpstreamSettings, *(() if environ is None else (environ,)))
    if upstreams.payment_url is None:
        raise SettingError("ORDERS_PAYMENT_URL is not set: its ledger is compared")
    policy = ledgers.for_pages(policy_of(upstreams))
    with (
        contextlib.closing(Upstream("payment", upstreams.payment_url, policy)) as payment,
        contextlib.closing(Upstream("inventory", upstreams.inventory_url, policy)) as inventory,
    ):
        yield Witnesses(pool, ledgers.payments(payment), ledgers.reservations(inventory))


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        return
    print(
        f"read {report.payments} payments and {report.reservations} reservations, "
        f"looked at {report.orders} orders, {report.judged} of them one by one; "
        f"{report.database_seconds} s of the database"
    )
    if report.left_over:
        print(f"{report.left_over} suspects are left to the next run")
    if not report.violations:
        print("clean: nothing is wrong")
        return
    more = "at least " if len(report.violations) == LISTED else ""
    print(f"{more}{len(report.violations)} violations:")
    row = "{:>12}  {:24}  {:20}  {}"
    print(row.format("ORDER", "KIND", "SINCE", "DETAIL"))
    for each in report.violations[:_SHOWN]:
        since = each.since.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        print(row.format(each.order_id, each.kind, since, each.detail))
    if len(report.violations) > _SHOWN:
        print(f"… --json shows the first {LISTED}")
