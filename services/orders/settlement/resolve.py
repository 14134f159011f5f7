"""`orders payments resolve`: settle a payment attempt as a person states it."""

import argparse
import sys
import uuid
from typing import Final

import msgspec

from orders import settings
from orders.cache.client import Redis
from orders.cache.orders import OrderCache, snapshot
from orders.database.audit import operator
from orders.database.pool import Pool
from orders.database.progress import AttemptOutcome, Progress, Work
from orders.domain.order import AttemptKind, Order
from orders.errors import OrdersError, Permanent
from orders.settings import CacheSettings
from orders.settlement.connections import database, payment_ledger, transaction
from orders.settlement.evidence import attempt_uuid
from orders.settlement.resolution import (
    Attempt,
    LearnedOutcome,
    Resolution,
    contradicts,
    resolve,
)
from orders.telemetry import context
from orders.telemetry.context import Context
from orders.upstream.ledgers import PaymentEntry, PaymentStatus

_UNCHECKED: Final = "--yes --against-payment settles it without Payment's confirmation"
_NO_MESSAGE: Final = str(uuid.UUID(int=0))  # no message caused this


class Case(msgspec.Struct, frozen=True):
    """An attempt, its order, and the ids for the order's messages."""

    attempt: Attempt
    work: Work
    ids: Context


class PaymentLookup(msgspec.Struct, frozen=True):
    """Payment's entry of an attempt; `failure` is the reason if Payment did not answer."""

    entry: PaymentEntry | None = None
    failure: str | None = None


def run(arguments: argparse.Namespace) -> int:
    """Print the changes, or commit them with --yes; return 1 if impossible. Raises OrdersError."""
    learned_outcome, actor = LearnedOutcome(arguments.learned), operator(arguments.name)
    with database() as pool:
        case = _find(pool, Progress(pool, actor), arguments.attempt)
        answer = _ask(case)
        if not arguments.against_payment:
            _compare(learned_outcome, case.attempt, answer, commits=arguments.yes)
        resolution = resolve(case.work, case.attempt, learned_outcome)
        print(_describe(case, resolution))
        if not arguments.yes:
            is_unchecked = answer.failure is not None and not arguments.against_payment
            print(f"nothing was changed: {_UNCHECKED if is_unchecked else '--yes applies this'}")
            return 0
        order = _commit(case, resolution, _row(arguments, case, actor, answer))
    _tell_cache(order)
    print(f"done: order {order.id} is {order.status}")
    return 0


def _compare(
    learned_outcome: LearnedOutcome, attempt: Attempt, answer: PaymentLookup, *, commits: bool
) -> None:
    """Raise OrdersError if Payment's ledger contradicts the person.

    If the command `commits`, also raise it if Payment does not answer.
    """
    if answer.failure is not None and commits:
        raise OrdersError(f"nothing was changed: {_UNCHECKED}")
    entry = answer.entry
    if entry is None:
        return
    ledger_status, statement = str(entry.status), str(learned_outcome)
    if ledger_status == statement and entry.amount != attempt.amount:
        ledger_status, statement = (
            f"{ledger_status} {entry.amount}",
            f"{statement} {attempt.amount}",
        )
    if contradicts(learned_outcome, entry.status) or ledger_status != statement:
        raise OrdersError(
            f"Payment's ledger says {ledger_status}, not {statement}: "
            "--against-payment if you know better"
        )


def _find(pool: Pool, progress: Progress, attempt_id: uuid.UUID) -> Case:
    rows = pool.execute("find_attempt", {"id": attempt_id})
    if not rows:
        raise Permanent(f"there is no payment attempt {attempt_id}", reason="unknown_attempt")
    row = rows[0]
    work = progress.load(row.order_id, _NO_MESSAGE)
    if work is None:
        raise Permanent(f"there is no order {row.order_id}", reason="unknown_order")
    attempt = Attempt(attempt_id, AttemptKind(row.kind), row.amount, AttemptOutcome(row.outcome))
    return Case(attempt, work, context.accept(row.correlation_id, row.traceparent)[0])


def _ask(case: Case) -> PaymentLookup:
    """Query Payment's ledger and print its entry; a person may know what it does not."""
    print("asking Payment ...", file=sys.stderr)
    try:
        with payment_ledger() as ledger:
            entries = ledger.of_order(case.work.order.id)
    except OrdersError as error:
        print(f"Payment cannot be queried: {error}", file=sys.stderr)
        return PaymentLookup(failure=str(error))
    for entry in entries:
        is_same = attempt_uuid(entry.attempt_id) == case.attempt.id
        if is_same and entry.kind.value == case.attempt.kind.value:
            print(f"Payment's ledger: {entry.status} {entry.amount}")
            return PaymentLookup(entry)
    print("Payment's ledger does not have the attempt")
    return PaymentLookup()


def _describe(case: Case, resolution: Resolution) -> str:
    order, attempt = case.work.order, case.attempt
    message_type = resolution.change.announces or "no message"
    return (
        f"{attempt.kind} {attempt.id} of {attempt.amount}: {attempt.outcome} → "
        f"{resolution.step.outcome}\n"
        f"order {order.id}: {order.status} → {resolution.change.to} ({message_type})"
    )


def _row(
    arguments: argparse.Namespace, case: Case, actor: str, answer: PaymentLookup
) -> dict[str, object]:
    """Return the audit row."""
    detail: dict[str, object] = {
        "attempt": str(case.attempt.id),
        "before": case.attempt.outcome,
        "orderVersion": case.work.order.version,
        "paymentSaid": answer.entry and answer.entry.status,
    }
    if (
        arguments.against_payment
        and arguments.learned == LearnedOutcome.REFUNDED
        and answer.failure is None
    ):
        # The part of the refund paid outside Payment, which reconciliation adds.
        outside_refund = case.attempt.amount
        if answer.entry is not None and answer.entry.status is PaymentStatus.REFUNDED:
            outside_refund -= answer.entry.amount
        detail["elsewhere"] = outside_refund
    return {
        "actor": actor,
        "action": f"payments resolve --{arguments.learned}",
        "subject": f"order {case.work.order.id}",
        "because": arguments.because,
        "detail": msgspec.json.encode(detail).decode(),
    }


def _commit(case: Case, resolution: Resolution, row: dict[str, object]) -> Order:
    """Move the order, its attempt, history, outbox and the audit row in one transaction."""
    with transaction() as statements:
        progress = Progress(statements, str(row["actor"]))
        order = progress.advance(case.work, resolution.change, resolution.step, case.ids)
        if order is None:
            raise OrdersError("the order changed meanwhile: check it and try again")
        statements.execute("record_action", row)
    return order


def _tell_cache(order: Order) -> None:
    """Write the order to the cache; without Redis readers see the change within seconds."""
    caching = settings.load(CacheSettings)
    if caching.url is not None:
        cache = OrderCache(Redis(caching), caching)
        cache.put(snapshot(order))
        cache.close()
