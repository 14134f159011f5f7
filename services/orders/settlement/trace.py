"""`orders trace`: the whole story of one order on a terminal."""

import argparse
import datetime as dt
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from orders.settlement.connections import database
from orders.settlement.story import Story, tell

NOT_ASKED: Final = 3
_ROW: Final = "{:27}  {:>11}  {:12}  {}"


def run(chosen: argparse.Namespace) -> int:
    """Tell it; 0: the order exists, 1: it does not, 3: the database cannot be asked."""
    with database() as pool:
        story = tell(pool, chosen.order, _announce)
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(story), indent=2).decode())
    else:
        print("\n".join(_lines(story)))
    return NOT_ASKED if story.exists is None else int(not story.exists)


def _announce(name: str) -> None:
    print(f"asking {name} ...", file=sys.stderr)


def _lines(story: Story) -> Iterator[str]:
    yield _headline(story)
    if story.events:
        yield _ROW.format("AT", "AFTER", "BY", "WHAT")
    before: dt.datetime | None = None
    for event in story.events:
        at = event.at.astimezone(dt.UTC)
        after = f"+{(at - before).total_seconds():.3f} s" if before else ""
        before = at
        moment = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield _ROW.format(moment, after, event.source, _printable(event.what))
    yield from (f"still to come: {_printable(text)}" for text in story.waiting)
    yield from (f"needs {_printable(text)}" for text in story.needs)
    yield from (f"not known: {_printable(text)}" for text in story.unknown)


def _headline(story: Story) -> str:
    order = story.order
    if story.exists is None:
        return f"order {story.order_id}: not known whether it exists"
    if order is None:
        return f"order {story.order_id}: the database has no such order"
    reason = f" ({order['status_reason']})" if order["status_reason"] else ""
    return (
        f"order {story.order_id}: {order['status']}{reason}, {order['quantity']} × product "
        f"{order['product_id']}, total {order['total']:.2f}, user {order['user_id']}, "
        f"correlation id {_printable(order['correlation_id'])}"
    )


def _printable(text: str) -> str:
    """Return text that people or others gave, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
