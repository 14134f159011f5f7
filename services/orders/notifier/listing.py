"""`orders notifications`: list unsent notifications, and send them again."""

import argparse
from typing import Final

from orders.argument_types import positive, reason
from orders.database.audit import operator
from orders.database.notifications import WAITING, AuditDetails, NotificationOutcome, Notifications
from orders.database.pool import opened
from orders.errors import OrdersError
from orders.settings import DatabaseSettings

_OUTCOMES: Final = tuple(each.value for each in NotificationOutcome)  # texts for error messages
_STATES: Final = (WAITING, *_OUTCOMES)
_LIMIT: Final = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "list notifications that were not sent, oldest first"
    listing = actions.add_parser("list", help=text, description=text)
    listing.add_argument("--state", choices=_STATES, help="only these (default: all)")
    listing.add_argument("--limit", type=positive, default=_LIMIT, help="at most this many")
    text = "send notifications again, with a new count of tries"
    resend = actions.add_parser("resend", help=text, description=text)
    selection = resend.add_mutually_exclusive_group(required=True)
    selection.add_argument(
        "--order", type=positive, metavar="ID", help="those of this order that were not sent"
    )
    selection.add_argument("--state", choices=_OUTCOMES, help="all that ended like this")
    resend.add_argument("--template", help="with --order: only this one, sent or not")
    resend.add_argument(
        "--because", type=reason, default="not given", help="the reason, for the audit row"
    )
    resend.add_argument("--as", dest="name", help="who you are, if not the login")


def run(arguments: argparse.Namespace, settings: DatabaseSettings) -> int:
    """Run the command; 1 if there was nothing to send again. Raises OrdersError."""
    with opened(settings, "orders-notifications") as pool:
        notifications = Notifications(pool, claim_s=0)
        if arguments.action == "list":
            return _list(notifications, arguments)
        return _resend(notifications, arguments)


def _list(notifications: Notifications, arguments: argparse.Namespace) -> int:
    row = "{:>12}  {:20}  {:9}  {:>5}  {:25}  {:25}  {}"
    print(row.format("ORDER", "TEMPLATE", "STATE", "TRIES", "SINCE", "NEXT TRY", "LAST ERROR"))
    states = _STATES if arguments.state is None else (arguments.state,)
    for notification in notifications.unsent(states, arguments.limit):
        next_try = (
            "-"
            if notification.next_at is None
            else notification.next_at.isoformat(timespec="seconds")
        )
        print(
            row.format(
                notification.order_id,
                notification.template,
                notification.state,
                notification.tries,
                notification.queued_at.isoformat(timespec="seconds"),
                next_try,
                notification.last_error or "-",
            )
        )
    return 0


def _resend(notifications: Notifications, arguments: argparse.Namespace) -> int:
    if arguments.template is not None and arguments.order is None:
        raise OrdersError("--template needs --order")
    outcome = None if arguments.state is None else NotificationOutcome(arguments.state)
    queued = notifications.resend(
        AuditDetails(operator(arguments.name), arguments.because),
        order_id=arguments.order,
        template=arguments.template,
        outcome=outcome,
    )
    for order_id, template in queued:
        print(f"queued {template} of order {order_id}")
    if not queued:
        print("there is no such notification")
    return 0 if queued else 1
