"""`orders dead-letters`: look at what was put aside, send it again, or drop it."""

import argparse
from collections.abc import Callable
from typing import Any, Final

import msgspec

from orders.errors import OrdersError
from orders.messaging import envelope, topology
from orders.messaging.envelope import Delivery
from orders.messaging.letter_box import Box, describe_letter, letter_id, opened, printable
from orders.settings import MessagingSettings

_QUEUES: Final = (*topology.ACCEPTS, topology.UNROUTED)
_LIMIT: Final = 50
_LONGEST_BODY_BYTES: Final = 65_536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "list the letters, oldest first")
    listing.add_argument("--limit", type=_positive, default=_LIMIT, help="at most so many")
    show = _action(actions, "show", "show one letter with its body, as JSON")
    show.add_argument("--id", dest="ids", action="append", required=True, metavar="MESSAGE_ID")
    _chosen_letters(_action(actions, "replay", "send letters again, as if never tried"))
    drop = _action(actions, "drop", "remove letters for good")
    _chosen_letters(drop)
    drop.add_argument("--yes", action="store_true", help="really: a dropped message is gone")


def run(args: argparse.Namespace, settings: MessagingSettings) -> int:
    """Do what was asked; 0 if all of it could be done. Raises OrdersError."""
    queue = args.queue if args.queue == topology.UNROUTED else topology.dead_queue(args.queue)
    if args.action == "drop" and not args.yes:
        raise OrdersError("a dropped message is gone for good: say --yes to drop it")
    with opened(settings, queue) as box:
        if args.action == "list":
            return _list(box, args.limit)
        if args.action == "show":
            return _each(box, args, _show)
        act, word = (box.replay, "replayed") if args.action == "replay" else (box.remove, "dropped")
        return _each(box, args, _announced(act, word))


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=text, description=text)
    action.add_argument(
        "queue", metavar="QUEUE", type=_queue, help=f"the queue they died in: {', '.join(_QUEUES)}"
    )
    return action


def _chosen_letters(action: argparse.ArgumentParser) -> None:
    which = action.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", dest="ids", action="append", metavar="MESSAGE_ID", help="this one")
    which.add_argument("--all", action="store_true", help="every one that is there now")
    action.add_argument("--limit", type=_positive, help="with --all: at most so many, oldest first")


def _queue(text: str) -> str:
    name = text.removesuffix(".dead")
    if name not in _QUEUES:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(_QUEUES)}")
    return name


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return number


def _list(box: Box, limit: int) -> int:
    row = "{:36}  {:20}  {:20}  {:>8}  {:>10}  {:25}  {}"
    print(row.format("ID", "TYPE", "REASON", "ATTEMPTS", "ORDER", "DIED AT", "ERROR"))
    for delivery in box.letters(limit):
        letter = describe_letter(delivery)
        order = "-" if letter.order_id is None else letter.order_id
        print(
            row.format(
                letter.id,
                letter.type,
                letter.reason,
                letter.attempts,
                order,
                letter.died_at,
                letter.error,
            )
        )
    return 0


def _each(box: Box, args: argparse.Namespace, act: Callable[[Delivery], None]) -> int:
    """Do something with each chosen letter; 1 if one that was named is not there."""
    if args.ids is None:
        for letter in box.letters(args.limit):
            act(letter)
        return 0
    missing = set(args.ids)
    for letter in box.letters():
        if (known := letter_id(letter)) in args.ids:
            act(letter)
            missing.discard(known)
    for message_id in sorted(missing):
        print(f"there is no {printable(message_id)}")
    return 1 if missing else 0


def _announced(act: Callable[[Delivery], None], word: str) -> Callable[[Delivery], None]:
    def announced(letter: Delivery) -> None:
        act(letter)
        print(f"{word} {letter_id(letter)}", flush=True)

    return announced


def _show(letter: Delivery) -> None:
    shown: dict[str, Any] = msgspec.to_builtins(describe_letter(letter))
    shown |= {
        "headers": {
            printable(name): printable(value)
            for name, value in envelope.headers(letter.properties).items()
        },
        "correlationId": printable(letter.properties.correlation_id),
        "body": letter.body[:_LONGEST_BODY_BYTES].decode(errors="backslashreplace"),
    }
    print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
