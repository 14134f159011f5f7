"""The command line of the local stack: `python -m devstack VERB`."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from devstack import control, detached, foreground, logs, report, settings, stack, state, tls
from devstack.settings import Settings
from devstack.supervisor import VERBS

Run = Callable[[argparse.Namespace, Settings], int]
NOT_RUNNING = 3


def main(argv: list[str] | None = None) -> int:
    """Run one verb; print an expected error in one line and return 2."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args, settings.load())
    except (
        settings.SettingError,
        control.NotRunning,
        control.RequestRefused,
        *foreground.FAILURES,
    ) as error:
        print(f"devstack: {error}", file=sys.stderr)
        return foreground.FAILED
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser, with a sub-command for each verb."""
    command_line = argparse.ArgumentParser(
        prog="python -m devstack",
        description="Run the whole order platform on this machine.",
        epilog=f"environment:\n{settings.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = command_line.add_subparsers(required=True, metavar="VERB")
    add(
        verbs,
        "up",
        lambda _, stack_settings: foreground.up(stack_settings),
        "run in the foreground until Ctrl-C",
    )
    for verb in VERBS:
        add_component_verb(verbs, verb)
    add(verbs, "status", status, "show every component")
    add_logs(verbs)
    add_demo(verbs)
    add(verbs, "observe", observe, "add Prometheus and Alertmanager to the running stack")
    add(verbs, "clean-state", clean_state, "remove the state folder")
    add(verbs, "environment", environment, "print the variables of the services, for a shell")
    return command_line


def add(verbs: Any, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    """Add a verb that calls `run`, and return its parser for further arguments."""
    command: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def add_component_verb(verbs: Any, verb: str) -> None:
    """Add a verb for one component; start and stop without one mean the whole stack."""
    optional = verb in ("start", "stop")
    text = f"{verb} a component of the running stack"
    command = add(
        verbs,
        verb,
        start_or_stop if optional else one,
        f"{verb} the stack, or {text}" if optional else text,
    )
    command.add_argument("component", nargs="?" if optional else None)
    command.set_defaults(verb=verb)


def add_logs(verbs: Any) -> None:
    """Add the verb `logs`."""
    command = add(verbs, "logs", show_logs, "show the last log lines")
    command.add_argument("component", nargs="*")
    command.add_argument("-f", "--follow", action="store_true", help="keep showing new lines")
    command.add_argument("-n", "--lines", type=int, default=20, help="lines of each log [20]")


def add_demo(verbs: Any) -> None:
    """Add the verb `demo`."""
    command = add(verbs, "demo", show_demo, "place orders and follow them to their end")
    command.add_argument("--count", type=positive, default=50, help="orders to place [50]")
    command.add_argument("--rate", type=positive, default=10, help="orders a second [10]")
    command.add_argument("--decline", type=share, default=0.1, help="share to be declined [0.1]")
    command.add_argument(
        "--timeout", type=positive, default=60, help="seconds an order may take [60]"
    )
    command.add_argument("--url", help="gateway [the local stack's]")


def start_or_stop(args: argparse.Namespace, stack_settings: Settings) -> int:
    """Start or stop the whole stack, or one component of it."""
    if args.component:
        return one(args, stack_settings)
    return detached.start(stack_settings) if args.verb == "start" else detached.stop(stack_settings)


def one(args: argparse.Namespace, stack_settings: Settings) -> int:
    """Send an action for one component to the running stack."""
    control.ask(stack_settings.state, verb=args.verb, component=args.component)
    return 0


def status(_: argparse.Namespace, stack_settings: Settings) -> int:
    """Print the table; return 0 if all are ready, 1 if one is not, 3 if no stack runs."""
    try:
        reply = control.ask(stack_settings.state, verb="status")
    except control.NotRunning as error:
        print(error)
        return NOT_RUNNING
    print(report.table(tuple(row) for row in reply["rows"]))
    unready = reply["unready"]
    if unready:
        states = ", ".join(f"{name} is {state}" for name, state in unready.items())
        print(f"devstack: not everything is ready: {states}", file=sys.stderr)
    return 1 if unready else 0


def show_logs(args: argparse.Namespace, stack_settings: Settings) -> int:
    """Print the end of each log."""
    return logs.show(stack_settings.state / "logs", args.component, args.lines, follow=args.follow)


def show_demo(args: argparse.Namespace, stack_settings: Settings) -> int:
    """Run the demo; return 1 if an order was refused or did not end."""
    from rich.console import Console

    from devstack import demo

    url, authority = args.url, None
    if not url:
        url, authority = gateway_of_running(stack_settings)
    plan = demo.DemoPlan(
        url=url.rstrip("/"),
        authority=authority,
        count=math.ceil(args.count),
        rate=args.rate,
        decline_ratio=args.decline,
        timeout_s=args.timeout,
    )
    return demo.run(plan, Console())


def gateway_of_running(stack_settings: Settings) -> tuple[str, Path | None]:
    """Return the address of the running stack's gateway, and the authority to verify it with.

    The stack itself reports whether it uses TLS: it may have been started from another shell.
    """
    variables = control.ask(stack_settings.state, verb="environment")["environment"]
    actual = replace(stack_settings, tls=variables.get("DEVSTACK_TLS") == "1")
    return actual.gateway_url, tls.authority_file(actual) if actual.tls else None


def positive(text: str) -> float:
    """Read a number above 0, for argparse."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def share(text: str) -> float:
    """Read a number between 0 and 1, for argparse."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def observe(_: argparse.Namespace, stack_settings: Settings) -> int:
    """Start Prometheus and Alertmanager in the running stack, fetching them if needed."""
    from devstack.packages import prometheus
    from devstack.servers.prometheus import OPERATOR_ABSENT

    control.ask(stack_settings.state, verb="status")
    if not prometheus.RELEASE.cached():
        print("fetching Prometheus and Alertmanager: Debian packages, 30 MB, once", flush=True)
        prometheus.RELEASE.fetch()
    for component in ("alertmanager", "prometheus"):
        rows = control.ask(stack_settings.state, verb="start", component=component)["rows"]
        if [component, "ready"] not in (row[:2] for row in rows):
            raise control.RequestRefused(
                f"{component} did not start: see {stack_settings.state / 'logs'}"
            )
    left_out = OPERATOR_ABSENT if stack_settings.rules == settings.RULES else ""
    print(report.observed(stack_settings.ports, stack_settings.rules, left_out))
    return 0


def clean_state(_: argparse.Namespace, stack_settings: Settings) -> int:
    """Remove the state folder of a stack that does not run."""
    state.clean(stack_settings.state)
    print(f"removed {stack_settings.state}")
    return 0


def environment(_: argparse.Namespace, stack_settings: Settings) -> int:
    """Print `export` lines with which you can run a service or tool against the stack.

    The running stack provides them, because its ports may differ from those of this environment.
    """
    try:
        variables = control.ask(stack_settings.state, verb="environment")["environment"]
    except control.NotRunning as error:
        print(f"devstack: {error}; these are the addresses that it would have", file=sys.stderr)
        state.make(stack_settings.state)
        variables = stack.environment(stack_settings, state.load_secrets(stack_settings.state))
    for name, value in {**variables, "PYTHONPATH": str(settings.SOURCE)}.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0
