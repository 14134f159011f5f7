"""`orders dead-letters`: list dead letters, replay or drop them."""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import msgspec

from orders.argument_types import positive, reason
from orders.errors import OrdersError
from orders.messaging import envelope
from orders.messaging.dead_letter_queue import (
    DeadLetterQueue,
    describe_letter,
    letter_id,
    opened,
    printable,
)
from orders.messaging.envelope import Delivery
from orders.settings import MessagingSettings
from orderservice_topology import topology

_QUEUES: Final = (*topology.ACCEPTS, topology.UNROUTED)
_LIMIT: Final = 50
_MAX_BODY_BYTES: Final = 65_536
# Letters replayed per second: a guess that leaves the workers room for new orders.
_RATE: Final = 50.0
_BATCH: Final = 500  # letters looked up in one statement
_NONE_SETTLED: Final = "no letter was settled otherwise"
_CHANGING: Final = ("replay", "drop", "tidy")


class AuditRecord(Protocol):
    """The record of the letters that a command handled."""

    def note(self, letter_id: str) -> None:
        """Record that the command handled this letter."""


class Records(Protocol):
    """The audit log, and what the database knows of the letters' orders."""

    def recording(self, action: str, subject: str) -> AbstractContextManager[AuditRecord]:
        """Write a row before the block, and its result after the block."""

    def settled(self, letters: Sequence[tuple[int | None, str]], *, notify: bool) -> set[int]:
        """Return the positions of letters (order id, type) that need no action any more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "list the letters, oldest first")
    listing.add_argument("--limit", type=positive, default=_LIMIT, help="at most this many")
    show = _action(actions, "show", "show one letter with its body, as JSON")
    show.add_argument("--id", dest="ids", action="append", required=True, metavar="MESSAGE_ID")
    replay = _action(actions, "replay", "send letters again, with a new count of tries")
    _add_selection(replay)
    replay.add_argument(
        "--rate", type=_rate, default=_RATE, help=f"letters per second (default: {_RATE:g})"
    )
    drop = _action(actions, "drop", "remove letters for good")
    _add_selection(drop)
    drop.add_argument(
        "--yes", action="store_true", help="confirm: a dropped message is lost for good"
    )
    tidy = _action(
        actions, "tidy", "list the letters whose order was settled otherwise; --yes drops them"
    )
    tidy.add_argument("--yes", action="store_true", help="drop them")
    for action in (replay, drop, tidy):
        _reasons(action)


def run(
    arguments: argparse.Namespace, settings: MessagingSettings, records: Records | None = None
) -> int:
    """Run the command; 0 if all of it succeeded. Raises OrdersError.

    Without `records` it writes no audit row, and `tidy` is not possible.
    """
    queue = (
        arguments.queue
        if arguments.queue == topology.UNROUTED
        else topology.dead_queue(arguments.queue)
    )
    if arguments.action == "drop" and not arguments.yes:
        raise OrdersError("a dropped message is lost for good: add --yes to drop it")
    with opened(settings, queue) as dead_letters:
        if arguments.action == "list":
            return _list(dead_letters, arguments.limit)
        if arguments.action == "show":
            return _each(dead_letters, arguments, _show)
        if arguments.action == "tidy":
            return _tidy(dead_letters, arguments, queue, records)
        if arguments.ids is None and dead_letters.number == 0:
            print(f"{queue} has no letters")
            return 0
        with _recording(arguments, queue, records) as record:
            if arguments.action == "drop":
                return _each(
                    dead_letters, arguments, _announce(dead_letters.remove, "dropped", record)
                )
            return _each(
                dead_letters,
                arguments,
                _announce(_pace(dead_letters.replay, arguments.rate), "replayed", record),
            )


def wants_records(arguments: argparse.Namespace) -> bool:
    """Return whether a command makes a change that must be recorded."""
    if arguments.action == "tidy" and arguments.no_audit:
        raise OrdersError("tidy needs the database: leave --no-audit out")
    return arguments.action in _CHANGING and not arguments.no_audit


class _NoAudit:
    def note(self, letter_id: str) -> None:
        """Keep no record: the command runs with `--no-audit`."""


def _recording(
    arguments: argparse.Namespace, queue: str, records: Records | None
) -> AbstractContextManager[AuditRecord]:
    if records is None:
        return nullcontext(_NoAudit())
    return records.recording(f"dead-letters {arguments.action}", f"queue {queue}")


def _pace(change: Callable[[Delivery], None], rate: float) -> Callable[[Delivery], None]:
    """Return `change`, limited to `rate` letters per second."""
    next_at_s = time.monotonic()

    def paced(letter: Delivery) -> None:
        nonlocal next_at_s
        time.sleep(max(0.0, next_at_s - time.monotonic()))
        change(letter)
        next_at_s = max(next_at_s, time.monotonic() - 1 / rate) + 1 / rate

    return paced


def _tidy(
    dead_letters: DeadLetterQueue,
    arguments: argparse.Namespace,
    queue: str,
    records: Records | None,
) -> int:
    """List or drop letters that need no action any more. Keep unreadable ones."""
    if records is None:
        raise OrdersError("tidy needs the database: set ORDERS_DATABASE_URL")
    if queue == topology.UNROUTED:
        raise OrdersError(
            "letters of orders.unrouted are events that reached no queue: replay or drop them"
        )
    recording = _recording(arguments, queue, records) if arguments.yes else nullcontext(_NoAudit())
    number = 0
    with recording as record:
        for letter in _find_settled(dead_letters, queue, records):
            if arguments.yes:
                dead_letters.remove(letter)
            record.note(letter_id(letter))
            number += 1
            print(f"{'dropped' if arguments.yes else 'settled'} {letter_id(letter)}", flush=True)
    if not arguments.yes:
        noun = "letter was" if number == 1 else "letters were"
        print(f"{number} {noun} settled otherwise; drop with --yes" if number else _NONE_SETTLED)
    return 0


def _find_settled(
    dead_letters: DeadLetterQueue, queue: str, records: Records
) -> Iterator[Delivery]:
    notify = queue == topology.dead_queue(topology.NOTIFICATIONS)
    letters = dead_letters.letters()
    while batch := list(itertools.islice(letters, _BATCH)):
        descriptions = [describe_letter(letter) for letter in batch]
        positions = records.settled(
            [(description.order_id, description.type) for description in descriptions],
            notify=notify,
        )
        yield from (batch[position] for position in sorted(positions))


def _reasons(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--because", type=reason, default="not given", help="the reason, for the audit row"
    )
    action.add_argument("--as", dest="name", help="who you are, if not the login")
    action.add_argument(
        "--no-audit", action="store_true", help="write no audit row, if the database is unavailable"
    )


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 10_000:
        raise argparse.ArgumentTypeError("expected a number above 0, 10000 at most")
    return rate


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text)
    action.add_argument(
        "queue", metavar="QUEUE", type=_queue, help=f"the queue they died in: {', '.join(_QUEUES)}"
    )
    return action


def _add_selection(action: argparse.ArgumentParser) -> None:
    selection = action.add_mutually_exclusive_group(required=True)
    selection.add_argument(
        "--id", dest="ids", action="append", metavar="MESSAGE_ID", help="only this letter"
    )
    selection.add_argument("--all", action="store_true", help="all letters in the queue now")
    action.add_argument(
        "--limit", type=positive, help="with --all: at most this many, oldest first"
    )


def _queue(text: str) -> str:
    name = text.removesuffix(".dead")
    if name not in _QUEUES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(_QUEUES)}")
    return name


def _list(dead_letters: DeadLetterQueue, limit: int) -> int:
    row = "{:36}  {:20}  {:20}  {:>8}  {:>10}  {:25}  {}"
    print(row.format("ID", "TYPE", "REASON", "ATTEMPTS", "ORDER", "DIED AT", "ERROR"))
    for delivery in dead_letters.letters(limit):
        letter = describe_letter(delivery)
        order = "-" if letter.order_id is None else letter.order_id
        print(
            row.format(
                letter.id,
                letter.type,
                letter.reason,
                letter.tries,
                order,
                letter.died_at,
                letter.error,
            )
        )
    return 0


def _each(
    dead_letters: DeadLetterQueue, arguments: argparse.Namespace, change: Callable[[Delivery], None]
) -> int:
    """Apply `change` to each chosen letter; return 1 if a named letter is missing."""
    if arguments.ids is None:
        for letter in dead_letters.letters(arguments.limit):
            change(letter)
        return 0
    missing_ids = set(arguments.ids)
    for letter in dead_letters.letters():
        if (listed_id := letter_id(letter)) in arguments.ids:
            change(letter)
            missing_ids.discard(listed_id)
    for message_id in sorted(missing_ids):
        print(f"{dead_letters.queue} has no letter {printable(message_id)}")
    return 1 if missing_ids else 0


def _announce(
    change: Callable[[Delivery], None], verb: str, record: AuditRecord
) -> Callable[[Delivery], None]:
    def announced(letter: Delivery) -> None:
        change(letter)
        record.note(letter_id(letter))
        print(f"{verb} {letter_id(letter)}", flush=True)

    return announced


def _show(letter: Delivery) -> None:
    correlation_id = letter.properties.correlation_id
    document: dict[str, Any] = msgspec.to_builtins(describe_letter(letter))
    document |= {
        "headers": {
            printable(name): printable(value)
            for name, value in envelope.headers(letter.properties).items()
        },
        "correlationId": None if correlation_id is None else printable(correlation_id),
        "body": letter.body[:_MAX_BODY_BYTES].decode(errors="backslashreplace"),
    }
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
