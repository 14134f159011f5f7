"""Checks of the guarantees to clients, over the record of a run. Pure.

Each check is a function that yields violations; `CHECKS` is the table. Those of the failover tests
come first.
"""

import datetime as dt
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from failover import checker
from failover.checker import LOOKED, PAID, Violation, of_entry, of_mark, short
from failover.clients import mark_of_total
from failover.evidence import Moved
from failover.history import NO_ANSWER, Entry
from torture.record import TortureRecord

VISIBLE_WITHIN_S: Final = 1.0
WALK_SIZE: Final = 7
_FLOW_WITHIN_S: Final = 5.0
_CANCELLED: Final = frozenset({"Cancelled", "Refunding", "Refunded"})
# From the life cycle of docs and API, written down here once more on purpose.
_LEGAL: Final = frozenset(
    {
        (None, "Pending"),
        ("Pending", "Reserved"), ("Pending", "Failed"), ("Pending", "Cancelled"),
        ("Reserved", "Charging"), ("Reserved", "Cancelled"),
        ("Charging", "Charging"), ("Charging", "Completed"), ("Charging", "Failed"),
        ("Charging", "Cancelled"), ("Charging", "Refunding"),
        ("Completed", "Completed"), ("Completed", "Refunding"), ("Completed", "Refunded"),
        ("Refunding", "Refunding"), ("Refunding", "Refunded"),
    }
)  # fmt: skip
_OPEN: Final = frozenset({NO_ANSWER, 500, 502, 503, 504})


def _reads(record: TortureRecord) -> Iterator[Entry]:
    for entry in sorted(record.entries, key=lambda entry: entry.sent_s):
        if entry.action in ("read", "final") and entry.status == 200 and entry.version is not None:
            yield entry


def visible_in_time(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find reads of a version whose successor was committed more than a second before."""
    for entry in _reads(record):
        if int(entry.sent_s) in record.redis_out:
            continue
        counter[LOOKED] += 1
        for step in _newer(record, entry):
            since_s = entry.sent_s - step.at_s
            allowed_s = VISIBLE_WITHIN_S + record.slack_s(step.at_s, entry.sent_s)
            allowed_s += record.told_late_s(step)
            if since_s > allowed_s and not record.untold(step):
                text = f"order {entry.order_id} (m{entry.mark}) at version {entry.version}"
                yield of_entry(
                    entry, f"{text}, {step.after} v{step.version} {since_s:.2f} s before"
                )
                break


def _excused(record: TortureRecord, entry: Entry) -> bool:
    """Return whether a read may show an older version: Redis was out, or its writer died."""
    newer = _newer(record, entry)
    return int(entry.sent_s) in record.redis_out or any(record.untold(step) for step in newer)


def _newer(record: TortureRecord, entry: Entry) -> list[Moved]:
    """Return the steps of an order after the version that a read shows."""
    steps = record.moved.get(entry.order_id or 0, [])
    return [step for step in steps if step.version > (entry.version or 0)]


def reads_go_forward(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find clients that read an order in an older version than they did a second before."""
    newest: dict[tuple[int, int | None], list[tuple[float, int]]] = defaultdict(list)
    for entry in _reads(record):
        version, reads = entry.version or 0, newest[entry.client, entry.order_id]
        counter[LOOKED] += 1
        for at_s, older in reads:
            allowed_s = VISIBLE_WITHIN_S + record.slack_s(at_s, entry.sent_s)
            allowed_s += max((record.waited_s(step) for step in _newer(record, entry)), default=0)
            late = entry.sent_s - at_s > allowed_s
            if older > version and late and not _excused(record, entry):
                yield of_entry(
                    entry, f"order {entry.order_id} went back from v{older} to v{version}"
                )
                break
        if not reads or reads[-1][1] < version:
            reads.append((entry.answered_s, version))


def cancels_kept(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders whose end differs from the answer to their cancellation."""
    status = {row.id: row.status for rows in record.rows.values() for row in rows}
    for entry in record.entries:
        if entry.action != "cancel" or entry.status not in (200, 202, 409):
            continue
        end = status.get(entry.order_id or 0)
        if end is None or entry.retry_after is not None:
            continue
        counter[LOOKED] += 1
        problem = _broken_cancel(entry, end)
        if problem:
            yield of_entry(entry, f"order {entry.order_id} (m{entry.mark}): {problem}")


def _broken_cancel(entry: Entry, end: str) -> str | None:
    body = entry.body if isinstance(entry.body, dict) else {}
    if entry.status == 409:
        reason = body.get("reason")
        return None if reason == "Failed" == end else f"refused as {reason}, it is {end}"
    answered = body.get("status")
    if end not in _CANCELLED:
        return f"cancelled ({answered}), it is {end}"
    if answered == "Cancelled" and end != "Cancelled":
        return f"Cancelled before payment, it is {end}"
    if answered in ("Refunding", "Refunded") and end == "Cancelled":
        return "to be paid back, it is Cancelled"
    return None


def refunds_kept(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders that were paid back another sum than was promised."""
    paid_back: Counter[int] = Counter()
    for refund in record.evidence.refunds:
        paid_back[refund.order_id] += refund.cents
    promised, possible = _asked(record)
    for mark, rows in record.rows.items():
        for row in rows:
            counter[LOOKED] += 1
            refunded, least = paid_back[row.id], promised[row.id]
            if refunded != row.refunded:
                text = (
                    f"order {row.id} (m{mark}): {row.refunded} cents noted, {refunded} given back"
                )
                yield of_mark(record, mark, text)
            elif row.status == "Refunded" and refunded != row.total_mark:
                yield of_mark(record, mark, f"order {row.id} (m{mark}) is Refunded, but {refunded}")
            elif row.status == "Completed" and not least <= refunded <= least + possible[row.id]:
                text = f"order {row.id} (m{mark}): {least} cents promised, {refunded} given back"
                yield of_mark(record, mark, text)
            elif row.status not in PAID and refunded:
                yield of_mark(
                    record, mark, f"order {row.id} (m{mark}) is {row.status}, got {refunded}"
                )


def _asked(record: TortureRecord) -> tuple[Counter[int], Counter[int]]:
    """Return the cents per order that were promised, and those that may have been."""
    requests: dict[tuple[int, object], list[Entry]] = defaultdict(list)
    for entry in record.entries:
        if entry.action == "refund" and entry.order_id is not None:
            use = entry.key or (entry.client, entry.number)
            requests[entry.order_id, use].append(entry)
    promised: Counter[int] = Counter()
    possible: Counter[int] = Counter()
    for (order_id, _), tries in requests.items():
        cents = tries[0].amount or 0
        if any(entry.status == 202 for entry in tries):
            promised[order_id] += cents
        elif any(entry.status in _OPEN for entry in tries):
            possible[order_id] += cents
    return promised, possible


def lists_whole(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find walks through a list that met an order twice, out of turn, or not at all."""
    walks: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in sorted(record.entries, key=lambda entry: entry.number):
        if entry.action == "walk" and entry.walk is not None:
            walks[entry.client, entry.walk].append(entry)
    posts_by_client: dict[int, list[Entry]] = defaultdict(list)
    for entry in record.first_accepted.values():
        posts_by_client[entry.client].append(entry)
    for (client, _), pages in walks.items():
        if any(page.status != 200 for page in pages):
            pages = pages[:-1]  # noqa: PLW2901 the walk ended there
        if pages:
            counter[LOOKED] += len(pages)
            yield from _walked(pages, posts_by_client[client])


def _walked(pages: Sequence[Entry], posts: Sequence[Entry]) -> Iterator[Violation]:
    places = [(page, _place(item)) for page in pages for item in page.body]
    for (_, place_before), (page, place_after) in itertools.pairwise(places):
        if place_before <= place_after:
            yield of_entry(
                page, f"its list has order {place_after[1]} after order {place_before[1]}"
            )
            return
    for page in pages[:-1]:
        if page.link and len(page.body) != WALK_SIZE:
            yield of_entry(page, f"a page of {len(page.body)} has a page after it")
            return
    if pages[-1].link is None:
        listed = {order_id for _, (_, order_id) in places}
        for entry in posts:
            if entry.answered_s < pages[0].sent_s and entry.order_id not in listed:
                yield of_entry(pages[-1], f"its whole list lacks order {entry.order_id}")
                return


def _place(item: Mapping[str, Any]) -> tuple[dt.datetime, int]:
    return dt.datetime.fromisoformat(item["createdAt"]), int(item["id"])


def keys_kept(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find keys that were treated as two requests, or answered in two ways."""
    for entry in record.entries:
        if entry.action == "reuse" and entry.status not in _OPEN:
            counter[LOOKED] += 1
            if entry.status not in (409, 422):
                yield of_entry(entry, f"another order under a used key: {entry.status}")
        elif entry.action in ("place", "repeat") and entry.key is not None:
            counter[LOOKED] += 1
            if entry.status == 422:
                yield of_entry(
                    entry, f"the same order under its key is refused: {short(entry.body)}"
                )


def answers_known(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find answers that no client should get: errors of ours, and refusals without a reason."""
    for entry in record.entries:
        counter[LOOKED] += 1
        if entry.status == 500:
            yield of_entry(entry, f"{entry.action} was answered 500: {short(entry.body)}")
        elif entry.status in (400, 401, 403, 405, 413, 415):
            yield of_entry(entry, f"{entry.action} was refused with {entry.status}")


def notices_in_order(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find webhooks of an order that came out of turn, and such as were signed wrongly."""
    newest: dict[int, int] = {}
    for notice in record.evidence.notified:
        mark = record.marks.get(notice.order_id)
        if mark is None:
            continue
        counter[LOOKED] += 1
        if notice.version <= newest.get(notice.order_id, 0):
            text = (
                f"order {notice.order_id} (m{mark}): {notice.type} v{notice.version} came too late"
            )
            yield of_mark(record, mark, text)
        newest[notice.order_id] = max(notice.version, newest.get(notice.order_id, 0))
    wrong = record.evidence.refused.get("bad_signature", 0)
    if wrong:
        yield Violation(f"{wrong} webhooks were not signed with the key")


def histories_whole(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find histories with gaps, or with steps that no order may take, and false views of them."""
    for mark, rows in record.rows.items():
        for row in rows:
            counter[LOOKED] += 1
            problem = _broken_history(record.moved.get(row.id, []), row.version, row.status)
            if problem:
                yield of_mark(record, mark, f"order {row.id} (m{mark}): {problem}")
    for entry in record.entries:
        if entry.action == "history" and entry.status == 200:
            counter[LOOKED] += 1
            changes = [(step["from"], step["to"]) for step in entry.body]
            steps = record.moved.get(entry.order_id or 0, [])
            if changes != [(step.before, step.after) for step in steps][: len(changes)]:
                yield of_entry(entry, f"order {entry.order_id} shows another history: {changes}")


def _broken_history(steps: Sequence[Moved], version: int, status: str) -> str | None:
    if [step.version for step in steps] != list(range(1, version + 1)):
        return f"version {version}, its history has {[step.version for step in steps]}"
    status_before: str | None = None
    for step in steps:
        if step.before != status_before or (step.before, step.after) not in _LEGAL:
            return f"{status_before}, then {step.before} to {step.after}"
        status_before = step.after
    return None if status_before == status else f"{status}, its history ends with {status_before}"


def books_balanced(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Compare Payment's money with what the orders say was paid and given back."""
    captured = sum(
        capture.mark for capture in record.evidence.captures if capture.mark in record.client_of
    )
    given_back = sum(
        refund.cents for refund in record.evidence.refunds if refund.order_id in record.marks
    )
    rows = [row for rows in record.rows.values() for row in rows]
    balance = sum(row.total_mark - row.refunded for row in rows if row.status in PAID)
    counter[LOOKED] += len(record.evidence.captures) + len(record.evidence.refunds)
    if captured - given_back != balance:
        text = f"Payment keeps {captured - given_back} cents, the orders say {balance}"
        yield Violation(text)


def work_noted(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find out whether the worker noted the messages that it was done with."""
    orders = len(record.evidence.orders)
    counter[LOOKED] += orders
    if record.evidence.processed < orders:
        yield Violation(f"{orders} orders, {record.evidence.processed} messages noted as processed")


def final_reads_true(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find reads at the end, with everything at rest, that differ from the database."""
    rows = {row.id: row for rows in record.rows.values() for row in rows}
    for entry in record.entries:
        row = rows.get(entry.order_id or 0)
        if entry.action != "final" or row is None or entry.version is None:
            continue
        counter[LOOKED] += 1
        if any(record.untold(step) for step in _newer(record, entry)):
            continue
        state = entry.body.get("status"), entry.version
        refunded = mark_of_total(entry.body.get("refunded", 0))
        if (*state, refunded) != (row.status, row.version, row.refunded):
            text = f"order {row.id} is {row.status} v{row.version}, {row.refunded} cents refunded"
            yield of_entry(entry, f"{text}; shown is {state[0]} v{state[1]}, {refunded}")


def served_afterwards(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find clients whose last order, placed when all faults were over, was not accepted."""
    entries = sorted(record.entries, key=lambda entry: entry.sent_s)
    last = {entry.client: entry for entry in entries if entry.action == "place"}
    for entry in last.values():
        counter[LOOKED] += 1
        if entry.status != HTTPStatus.ACCEPTED:
            yield of_entry(entry, f"m{entry.mark} was not accepted though all faults were over")


def queues_apart(record: TortureRecord, counter: Counter[str]) -> Iterator[Violation]:
    """Find orders that waited while only the queue of notifications was full."""
    for fault in record.faults:
        if (fault.kind, fault.subject) != ("fill", "order-notifications") or not fault.ended_s:
            continue
        if not record.alone(fault):
            continue
        slack_s = record.slack_s(fault.began_s, fault.ended_s)
        for mark, entry in record.first_accepted.items():
            due_s = entry.answered_s + _FLOW_WITHIN_S + slack_s
            if not fault.began_s + 1 < entry.answered_s or due_s > fault.ended_s:
                continue
            counter[LOOKED] += 1
            steps = record.moved.get(entry.order_id or 0, [])
            if not any(step.version > 1 and step.at_s < fault.ended_s for step in steps):
                yield of_entry(entry, f"m{mark} waited while notifications could not be queued")


CHECKS: Final[checker.Table] = {
    **{name: check for name, check in checker.CHECKS.items() if name != "visible"},
    "visible": ("a status is seen 1 s after its commit, Redis up", visible_in_time),
    "forward": ("a client's reads never go back", reads_go_forward),
    "cancels": ("an order ends as its cancellation was answered", cancels_kept),
    "refunds": ("paid back is what was promised", refunds_kept),
    "pages": ("lists have no gaps or doubles under cursors", lists_whole),
    "keys": ("a key stands for one request", keys_kept),
    "answers": ("no answer is an error of ours", answers_known),
    "notices": ("webhooks in order per order, signatures valid", notices_in_order),
    "histories": ("histories are complete and legal", histories_whole),
    "books": ("Payment's ledger balances with the orders", books_balanced),
    "noted": ("the worker notes the messages it is done with", work_noted),
    "final": ("at rest, every read agrees with the database", final_reads_true),
    "served": ("once all faults are over, orders are accepted", served_afterwards),
    "apart": ("a full queue holds no other up", queues_apart),
}
# What no time mends.
AT_ONCE: Final = (
    "lost", "ids", "twice", "contents", "foreign", "own-writes", "visible", "forward", "pages",
    "keys", "notices", "served", "apart",
)  # fmt: skip
# What time mends: a run is at rest when these hold.
EVENTUAL: Final = ("ended", "told", "left-over", "stock", "refunds", "charges")
