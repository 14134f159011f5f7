"""The `orders` command: a verb for each process, and tools for people."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from orders import settings
from orders.errors import OrdersError, SettingError

_PROCESSES: Final = {
    "api": "serve the HTTP API (gunicorn)",
    "relay": "move committed outbox rows to RabbitMQ",
    "worker": "process orders (queue order-processing)",
    "notifier": "send webhooks (queue order-notifications)",
}
_READER_LEFT: Final = 128 + 13  # as a shell says that SIGPIPE ended a command
_SETTINGS_NOTE: Final = "Settings come from ORDERS_* variables: `orders settings` lists them."


def limit_look_ups() -> None:
    """Limit DNS look-ups of all libraries: 4 s instead of 20 s without an answer.

    The C library reads the variable at its first look-up. A value that is set already stays.
    """
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")


def main(command_line: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0 done, 1 failed, 2 wrong usage or setting.

    A tool's answer goes to stdout, its log lines to stderr.
    """
    limit_look_ups()
    words = sys.argv[1:] if command_line is None else command_line
    # A process does not load the tools' modules.
    is_tool = not words or words[0] not in _PROCESSES
    arguments = _parser(tools=is_tool).parse_args(words)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return _run_tool(words[0], arguments) if is_tool else run(arguments)
    except SettingError as error:
        print(f"orders: {error}", file=sys.stderr)
        return int(getattr(arguments, "wrong_setting", 2))
    except OrdersError as error:
        print(f"orders: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discard the rest of the output
        return _READER_LEFT
    except KeyboardInterrupt:
        return 130


def _run_tool(verb: str, arguments: argparse.Namespace) -> int:
    if verb != "settings":  # it says how to correct a setting
        from orders.telemetry import logs

        logs.configure(settings.load(settings.LogSettings), verb, descriptor=logs.STDERR)
    code: int = arguments.run(arguments)
    sys.stdout.flush()  # notice a closed pipe here, not at the end of the process
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that exits with 2 for wrong arguments, or with the verb's own code."""

    wrong_usage = 2

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.wrong_usage, f"{self.prog}: error: {message}\n")


def _parser(*, tools: bool) -> argparse.ArgumentParser:
    parser = _Parser(prog="orders", description=__doc__, epilog=_SETTINGS_NOTE)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for process, text in _PROCESSES.items():
        verb = verbs.add_parser(process, help=text, description=text, epilog=_SETTINGS_NOTE)
        verb.set_defaults(run=_process(process))
    if tools:
        _add_tools(verbs)
    return parser


def _add_tools(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    _add_migrate(verbs)
    _add_after_promotion(verbs)
    _add_topology(verbs)
    _add_dead_letters(verbs)
    _add_settlement(verbs)
    _add_notifications(verbs)
    listing = verbs.add_parser("settings", help="list every setting of every process")
    listing.set_defaults(run=_list_settings)


# Imported by verb, so that a process loads only what it runs.


def _process(name: str) -> Callable[[argparse.Namespace], int]:
    def run(_arguments: argparse.Namespace) -> int:
        match name:
            case "api":
                from orders.api.main import run
            case "relay":
                from orders.relay.main import run
            case "worker":
                from orders.worker.main import run
            case _:
                from orders.notifier.main import run
        return run(os.environ)

    return run


def _add_migrate(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    verb = verbs.add_parser("migrate", help="bring the database schema up to date")
    verb.add_argument(
        "--check", action="store_true", help="only check: exit 1 if a migration is missing"
    )
    verb.add_argument("--wait-s", type=float, default=60, help="how long to keep trying to connect")
    verb.set_defaults(run=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    from orders.database.migrate import migrate, pending, waiting

    database = settings.load(settings.DatabaseSettings)
    if arguments.check:
        migrations = pending(database)
        print("\n".join(migrations) or "the schema is up to date")
        return 1 if migrations else 0
    migrations = waiting(lambda: migrate(database), arguments.wait_s)
    print(f"applied {', '.join(migrations)}" if migrations else "the schema is up to date")
    return 0


def _add_after_promotion(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    from orders import promotion

    text = "repair sequences, caches and the relay after a standby was promoted; safe to repeat"
    verb = verbs.add_parser("after-promotion", help=text, description=text, epilog=_SETTINGS_NOTE)
    promotion.add_arguments(verb)
    verb.set_defaults(run=promotion.run)


def _add_topology(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    verb = verbs.add_parser("topology", help="exchanges, queues, bindings and policies of RabbitMQ")
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    apply = actions.add_parser(
        "apply", help="create or repair what is missing or different in RabbitMQ"
    )
    apply.set_defaults(run=_apply_topology)
    show = actions.add_parser("show", help="print the topology as JSON")
    show.set_defaults(run=_show_topology)


def _apply_topology(_arguments: argparse.Namespace) -> int:
    from orders.messaging.apply import main_apply

    return main_apply(settings.load(settings.TopologySettings))


def _show_topology(_arguments: argparse.Namespace) -> int:
    from orders.messaging.apply import main_show

    return main_show(os.environ)


def _add_dead_letters(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    from orders.messaging import dead_letters

    verb = verbs.add_parser("dead-letters", help="list, replay or drop dead letters")
    dead_letters.add_arguments(verb)
    verb.set_defaults(run=_dead_letters)


def _dead_letters(arguments: argparse.Namespace) -> int:
    from orders.messaging import dead_letters

    messaging = settings.load(settings.MessagingSettings)
    if not dead_letters.wants_records(arguments):
        return dead_letters.run(arguments, messaging)
    from orders.database.audit import Audit, operator
    from orders.settlement.connections import database

    with database() as pool:
        records = Audit(pool, operator(arguments.name), arguments.because)
        return dead_letters.run(arguments, messaging, records)


def _add_settlement(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    from orders.settlement import arguments

    for name, text, add in (
        (
            "reconcile",
            "compare orders with the ledgers of Payment and Inventory",
            arguments.add_reconcile,
        ),
        ("stuck", "list orders that need a person", arguments.add_stuck),
        ("trace", "show the history of one order", arguments.add_trace),
        ("payments", "settle payment attempts", arguments.add_payments),
    ):
        verb = verbs.add_parser(name, help=text, description=text, epilog=_SETTINGS_NOTE)
        add(verb)
        if name == "reconcile":
            verb.description = f"{text}; exit code 0: all agree, 1: could not run, 2: violations"
            verb.wrong_usage = arguments.COULD_NOT_RUN
            verb.set_defaults(wrong_setting=arguments.COULD_NOT_RUN)


def _add_notifications(verbs: "argparse._SubParsersAction[_Parser]") -> None:
    from orders.notifier import listing

    text = "list notifications that were not sent, or send them again"
    verb = verbs.add_parser("notifications", help=text, description=text)
    listing.add_arguments(verb)
    verb.set_defaults(
        run=lambda arguments: listing.run(arguments, settings.load(settings.DatabaseSettings))
    )


def _list_settings(_arguments: argparse.Namespace) -> int:
    for setting in settings.describe():
        print(f"{setting.name}  ({setting.type}, default {setting.default})")
        print(f"    {setting.description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
