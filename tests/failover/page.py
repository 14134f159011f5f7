"""The one page that a run ends with."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from failover.checker import Record, Verdict, Violation
from failover.history import Entry, Fault, about, around

GAP_GOAL_S = 5.0


def render(title: str, record: Record, verdicts: Sequence[Verdict], repeat: str) -> str:
    """Return the page: checks, first violation with its requests, gaps, answers, command."""
    parts = [
        f"{title}: {'holds' if all(verdict.holds for verdict in verdicts) else 'DOES NOT HOLD'}",
        *_table(verdicts),
        *_first_violation(record, verdicts),
        *_promotions(record),
        *_answers(record.entries),
        f"\n  again: {repeat}",
    ]
    return "\n".join(parts) + "\n"


def _table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield f"\n  {'CHECK':12}{'PROMISE':50}{'LOOKED AT':>10}{'VIOLATED':>10}"
    for verdict in verdicts:
        counts = f"{verdict.looked_at:10}{len(verdict.violations):10}"
        yield f"  {verdict.name:12}{verdict.promise:50}{counts}"


def _first_violation(record: Record, verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        for violation in verdict.violations[:1]:
            yield f"\n  first of {verdict.name}: {violation.text}"
            for entry in _requests(record, violation):
                arrow = "->" if entry.number == violation.number else "  "
                yield f"    {arrow} {_line(entry)}"


def _requests(record: Record, violation: Violation) -> Iterable[Entry]:
    if violation.mark is None:
        return around(record.entries, violation.client, violation.number)
    return about(record.entries, violation.mark)


def _line(entry: Entry) -> str:
    clock = time.strftime("%H:%M:%S", time.gmtime(entry.sent_s)) + f"{entry.sent_s % 1:.3f}"[1:]
    took_ms = (entry.answered_s - entry.sent_s) * 1000
    order = f"order {entry.order_id}" if entry.order_id else ""
    mark = f"m{entry.mark}" if entry.mark else ""
    key = "with key" if entry.key else ""
    version = f"v{entry.version}" if entry.version else ""
    facts = (mark, order, version, key, entry.error)
    return (
        f"{clock} client {entry.client} {entry.action:6} {entry.status or 'no answer'}"
        f" {took_ms:.0f} ms {' '.join(fact for fact in facts if fact)}"
    )


def gaps(record: Record) -> list[tuple[Fault, float, float, float]]:
    """Return for each promotion how long no client could write, and how long some could not.

    Seconds: from the fault to the first 202, from the promotion to the first 202, and from the
    promotion until every client had one. Infinite when it did not happen before the next fault.
    """
    promotions = [fault for fault in record.faults if fault.promoted_s]
    end_times_s = [*(fault.began_s for fault in promotions[1:]), math.inf]
    return [_gap(record, fault, end) for fault, end in zip(promotions, end_times_s, strict=False)]


def _gap(record: Record, fault: Fault, end_s: float) -> tuple[Fault, float, float, float]:
    first: dict[int, float] = {}
    everybody: set[int] = set()
    for entry in record.accepted:
        if entry.action == "place":
            everybody.add(entry.client)
            if fault.promoted_s < entry.answered_s < end_s:
                at_s = first.get(entry.client, math.inf)
                first[entry.client] = min(at_s, entry.answered_s)
    earliest = min(first.values(), default=math.inf)
    latest = max(first.values(), default=math.inf)
    if len(first) < len(everybody):
        latest = math.inf
    return fault, earliest - fault.began_s, earliest - fault.promoted_s, latest - fault.promoted_s


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _promotions(record: Record) -> Iterator[str]:
    measured = gaps(record)
    if not measured:
        return
    yield f"\n  {'GAP IN WRITES, s':44}{'p50':>8}{'p95':>8}{'max':>8}"
    for text, place in (
        ("from the fault to the first 202", 1),
        ("from the promotion to the first 202", 2),
        ("from the promotion until all clients wrote", 3),
    ):
        values = [float(row[place]) for row in measured]  # type: ignore[arg-type]
        yield f"  {text:44}" + "".join(f"{percentile(values, p):8.2f}" for p in (0.5, 0.95, 1))
    kinds = Counter(fault.kind for fault, *_ in measured)
    yield f"  promotions: {', '.join(f'{number} by {kind}' for kind, number in kinds.items())}"


def _answers(entries: Sequence[Entry]) -> Iterator[str]:
    yield "\n  ANSWERS"
    for action in dict.fromkeys(["place", *(entry.action for entry in entries)]):
        answers_of_action = [entry for entry in entries if entry.action == action]
        counts = Counter(entry.status or "none" for entry in answers_of_action)
        statuses = ", ".join(
            f"{status}: {number}" for status, number in sorted(counts.items(), key=str)
        )
        yield f"  {action:10}{statuses}"
