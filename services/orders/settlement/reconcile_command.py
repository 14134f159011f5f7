"""`orders reconcile`: sets up a run and prints its report."""

import argparse
import contextlib
import datetime as dt
import time
from typing import Final

import msgspec

from orders import settings
from orders.database.audit import operator
from orders.database.leadership import RECONCILIATION, Leadership
from orders.errors import OrdersError
from orders.settings import DatabaseSettings, ReconcileSettings
from orders.settlement.connections import database, evidence_sources, transaction
from orders.settlement.reconcile import (
    BEGINNING,
    Reconciliation,
    ReconciliationReport,
    Start,
    first_since,
)
from orders.settlement.store import LISTED, ReconciliationStore

CLEAN: Final = 0
VIOLATIONS: Final = 2

_SHOWN: Final = 50
_PATIENCE_S: Final = 2.0


def reconcile(arguments: argparse.Namespace) -> int:
    """Run once; return 0 without and 2 with violations. Raises OrdersError if it cannot run."""
    if arguments.accept is not None:
        return _accept(arguments)
    report = _run(arguments)
    _print(report, as_json=arguments.json)
    return VIOLATIONS if report.violations else CLEAN


# It asks for the lock once. A run that is frozen for longer does not block others.
_MAX_SILENCE_S: Final = 3600


def _run(arguments: argparse.Namespace) -> ReconciliationReport:
    primary, reconcile_settings = settings.load(DatabaseSettings), settings.load(ReconcileSettings)
    leadership = Leadership(primary, RECONCILIATION, "orders-reconcile", silence_s=_MAX_SILENCE_S)
    with database() as pool, evidence_sources(pool) as sources, contextlib.closing(leadership):
        _wait_for(leadership)
        store = ReconciliationStore(pool)
        return Reconciliation(store, sources, reconcile_settings).run(_start(arguments, store))


def _wait_for(leadership: Leadership) -> None:
    """Take the lock of the only run; one that has just ended frees it a moment later."""
    until_s = time.monotonic() + _PATIENCE_S
    while not leadership.held():
        if time.monotonic() > until_s:
            raise OrdersError("another reconciliation is running: wait until it ends")
        time.sleep(0.1)


def _accept(arguments: argparse.Namespace) -> int:
    """Accept the violations of one order, so that they no longer count; record who did so."""
    if arguments.because is None:
        raise OrdersError("give --because: how the violations were settled")
    with transaction() as statements:
        rows = statements.execute("accept_violations", {"id": arguments.accept})
        if not rows:
            raise OrdersError(f"order {arguments.accept} has no open violations")
        statements.execute(
            "record_action",
            {
                "actor": operator(arguments.name),
                "action": "reconcile --accept",
                "subject": f"order {arguments.accept}",
                "because": arguments.because,
                "detail": msgspec.json.encode(dict(rows)).decode(),
            },
        )
    print(f"accepted {', '.join(kind for kind, _ in rows)} of order {arguments.accept}")
    return CLEAN


def _start(arguments: argparse.Namespace, store: ReconciliationStore) -> Start | None:
    if arguments.full:
        return BEGINNING
    if arguments.since is None:
        return None
    return Start(arguments.since, arguments.since, first_since(store, arguments.since))


def _print(report: ReconciliationReport, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        return
    print(
        f"read {report.payments} payments and {report.reservations} reservations, "
        f"looked at {report.orders} orders, {report.judged} of them one by one; "
        f"{report.database_seconds} s of the database"
    )
    if report.too_young:
        print(f"{report.too_young} orders are too young to judge or under way: a later run will")
    if report.left_over:
        print(f"{report.left_over} suspects are left to the next run")
    if not report.violations:
        print("clean: no violations")
        return
    prefix = "at least " if len(report.violations) == LISTED else ""
    noun = "violation" if len(report.violations) == 1 else "violations"
    print(f"{prefix}{len(report.violations)} {noun}:")
    row = "{:>12}  {:24}  {:20}  {}"
    print(row.format("ORDER", "KIND", "SINCE", "DETAIL"))
    for violation in report.violations[:_SHOWN]:
        since_text = violation.since.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        print(row.format(violation.order_id, violation.kind, since_text, violation.detail))
    if len(report.violations) > _SHOWN:
        print(f"… --json shows the first {LISTED}")
