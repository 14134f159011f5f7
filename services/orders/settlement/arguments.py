"""The arguments of the commands, whose modules are imported when they run."""

import argparse
import contextlib
import datetime as dt
import re
import uuid
from typing import Final

from orders.argument_types import positive, reason

COULD_NOT_RUN: Final = 1  # of `orders reconcile`, whose 2 means violations

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_STUCK: Final = 100


def add_reconcile(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `orders reconcile`."""
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="compare what changed since then: 2h, 3d, or as in 2026-11-29T12:00:00Z; "
        "the next run continues where the last one without --since ended",
    )
    scope.add_argument("--full", action="store_true", help="compare everything from the beginning")
    scope.add_argument(
        "--accept",
        type=order_id,
        metavar="ORDER",
        help="compare nothing; stop counting this order's violations, which were settled elsewhere",
    )
    parser.add_argument("--because", type=reason, help="with --accept: why, for the audit row")
    parser.add_argument("--as", dest="name", help="with --accept: who you are, if not the login")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_reconcile)


def add_stuck(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `orders stuck`."""
    parser.add_argument("--json", action="store_true", help="print the orders as JSON")
    parser.add_argument(
        "--limit", type=positive, default=_STUCK, help="at most this many, oldest first"
    )
    parser.set_defaults(run=_stuck)


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `orders trace`."""
    parser.add_argument("order", type=order_id, metavar="ORDER", help="its id")
    parser.add_argument("--json", action="store_true", help="print the history as JSON")
    parser.set_defaults(run=_trace)


def add_payments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `orders payments`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    text = "settle a payment attempt whose outcome you know; without --yes only show the changes"
    resolve = actions.add_parser("resolve", help=text, description=text)
    resolve.add_argument("attempt", type=attempt_id, metavar="ATTEMPT", help="its id")
    outcomes = resolve.add_mutually_exclusive_group(required=True)
    for outcome, meaning in (
        ("captured", "the money was taken"),
        ("declined", "no money moved, and none will"),
        ("refunded", "the money was refunded, by Payment or otherwise"),
    ):
        outcomes.add_argument(
            f"--{outcome}", dest="learned", action="store_const", const=outcome, help=meaning
        )
    resolve.add_argument(
        "--because", type=reason, required=True, help="how you know, for the audit row"
    )
    resolve.add_argument("--as", dest="name", help="who you are, if not the login")
    resolve.add_argument("--yes", action="store_true", help="do it")
    resolve.add_argument(
        "--against-payment", action="store_true", help="even if Payment's ledger says otherwise"
    )
    resolve.set_defaults(run=_resolve)


def _resolve(arguments: argparse.Namespace) -> int:
    from orders.settlement.resolve import run

    return run(arguments)


def attempt_id(text: str) -> uuid.UUID:
    """Read the id of a payment attempt."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected the id of a payment attempt, a UUID") from None


def _reconcile(arguments: argparse.Namespace) -> int:
    from orders.settlement.reconcile_command import reconcile

    return reconcile(arguments)


def _stuck(arguments: argparse.Namespace) -> int:
    from orders.settlement.stuck import run

    return run(arguments)


def _trace(arguments: argparse.Namespace) -> int:
    from orders.settlement.trace import run

    return run(arguments)


def moment(text: str) -> dt.datetime:
    """Read a time, or a duration before now such as 90s, 2h or 3d."""
    with contextlib.suppress(ValueError, OverflowError):  # before the year 1
        if duration := re.fullmatch(r"(\d{1,9})([smhd])", text):
            return dt.datetime.now(dt.UTC) - dt.timedelta(
                seconds=int(duration[1]) * _UNITS[duration[2]]
            )
        time = dt.datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(dt.UTC)
    raise argparse.ArgumentTypeError("expected 2h, 3d, or as in 2026-11-29T12:00:00Z")


def order_id(text: str) -> int:
    """Read the id of an order."""
    if not text.isdecimal() or not 0 < int(text) < 2**53:
        raise argparse.ArgumentTypeError("expected the id of an order, a number above 0")
    return int(text)
