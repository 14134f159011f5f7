"""The command line of `make alerts-drill`."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from loadtest.drill.faults import ELSEWHERE, FAULTS, Fault, all_quiet
from loadtest.drill.prometheus import Prometheus
from loadtest.drill.stack import SERVICES, SETTINGS, Stack
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.written import files

# With these objectives a fault of seconds counts as one of hours.
STRICT = Objectives(completion_seconds=5)
WITHIN_S: Final = 120.0
_ROW: Final = "  {:42} {:32} {:8} {:>7}  {}"


class FaultResult(NamedTuple):
    """The result of a fault: the alerts that fired before it, and the delay of the others."""

    fault: Fault
    before: set[str]
    fired_s: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Break a stack and print a table; 0 if all alerts of the faults fired, 1 if one did not."""
    faults = _parser().parse_args(arguments).faults or FAULTS
    for signal_number in (signal.SIGINT, signal.SIGTERM):  # so that the stack is stopped as well
        signal.signal(signal_number, lambda number, _: sys.exit(128 + number))
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:5.0f} s  {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="orders-drill-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "state", environment(Path(folder)))
        Path(folder).chmod(0o755)
        try:
            say("starting a stack with Prometheus and Alertmanager")
            stack.do("start")
            stack.do("observe")
            all_quiet(stack)
            results = []
            for number, fault in enumerate(faults, start=1):
                say(f"{number}/{len(faults)} {fault.name}: {fault.title}")
                results.append(try_fault(stack, Prometheus(stack), fault))
                say(f"    {len(results[-1].fired_s)} of {len(fault.alerts)} alerts fired")
        finally:
            say("stopping the stack")
            stack.devstack("stop")
    return summary(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alerts-drill",
        description="Start a stack, inject one fault after the other and show which alerts fire. "
        "The alerts wait for nothing (`for: 0s`). Exit code 1: an alert did not fire.",
        epilog="faults:\n" + "\n".join(f"  {fault.name:16} {fault.title}" for fault in FAULTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "faults", metavar="fault", nargs="*", type=named, help="inject only these faults"
    )
    return parser


def named(name: str) -> Fault:
    """Find a fault by its name. Raises argparse.ArgumentTypeError."""
    for fault in FAULTS:
        if fault.name == name:
            return fault
    message = f"no fault {name!r}: one of {', '.join(fault.name for fault in FAULTS)}"
    raise argparse.ArgumentTypeError(message)


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a stack whose alert rules fire without a waiting time."""
    rules = folder / "rules"
    rules.mkdir()
    for name, text in files(Scope("orders"), STRICT, every_s=1, patience="0s").items():
        (rules / name).write_text(text)
    extra = {"PYTHONPATH": str(SERVICES), "DEVSTACK_RULES": str(rules)}
    # One long sweep: a stuck order stays stuck, and an open breaker stays open.
    slow = {"ORDERS_WORKER_STALLED_AFTER_S": "600", "ORDERS_UPSTREAM_BREAKER_RESET_S": "30"}
    # A meinheld process uses one connection at a time. Only gthread can use up the pool.
    threads = {
        "ORDERS_API_WORKER_CLASS": "gthread",
        "ORDERS_API_WORKERS": "1",
        "ORDERS_DATABASE_POOL_SIZE": "8",
        "ORDERS_DATABASE_CONNECT_TIMEOUT_S": "10",
    }
    return os.environ | SETTINGS | slow | threads | extra


def try_fault(stack: Stack, prometheus: Prometheus, fault: Fault) -> FaultResult:
    """Cause a fault, watch for its alerts during it and after, and repair it."""
    previous = set(prometheus.firing())
    began_at = broken_at = time.monotonic()
    fired_s: dict[str, float] = {}
    with ThreadPoolExecutor(1) as aside:
        breaking = aside.submit(fault.make, stack)
        while len(fired_s) < len(fault.alerts) and time.monotonic() - broken_at < WITHIN_S:
            broken_at = broken_at if breaking.done() else time.monotonic()
            for alert in set(fault.alerts) & set(prometheus.firing()) - set(fired_s):
                fired_s[alert] = time.monotonic() - began_at
            time.sleep(0.5)
        breaking.result()
    fault.mend(stack)
    return FaultResult(fault, previous, fired_s)


def summary(results: list[FaultResult]) -> int:
    """Print a row for each alert and the alerts that no drill makes fire; return the exit code."""
    print(_ROW.format("FAULT", "ALERT", "BEFORE", "AFTER", "FIRED"))
    missed = []
    for fault, previous, fired_s in results:
        for alert in fault.alerts:
            delay, verdict = (f"{fired_s[alert]:.0f} s", "yes") if alert in fired_s else ("-", "NO")
            state = "firing" if alert in previous else "quiet"
            print(_ROW.format(fault.title, alert, state, delay, verdict))
        missed += [alert for alert in fault.alerts if alert not in fired_s]
    for alert, reason in ELSEWHERE.items() if len(results) == len(FAULTS) else ():
        print(_ROW.format("(not here)", alert, "", "", f"promtool only: {reason}"))
    fired = {alert for result in results for alert in result.fired_s}
    print(f"\n  alerts that fired: {len(fired)}; missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
