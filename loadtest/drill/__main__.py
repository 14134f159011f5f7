"""Run the drill and show the table; 1 when an alert did not fire that had to."""

import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtest.drill.faults import ELSEWHERE, FAULTS, Fault, peace
from loadtest.drill.prometheus import Prometheus
from loadtest.drill.stack import SERVICES, SETTINGS, Stack
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import platform_rules, service_rules
from orderservice_observability.written import files

# Objectives are data: with these a fault of seconds is one of hours.
STRICT = Objectives(completion_seconds=5)
WITHIN_S = 120.0
ROW = "  {:42} {:32} {:8} {:>7}  {}"


def main() -> int:
    """Start a stack with rules that fire at once, inject every fault, print the fired alerts."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stack ends with us
    with tempfile.TemporaryDirectory(prefix="orders-drill-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "state", environment(Path(folder)))
        Path(folder).chmod(0o755)
        try:
            stack.do("start")
            stack.do("observe")
            return drill(stack)
        finally:
            stack.devstack("stop")


def environment(folder: Path) -> dict[str, str]:
    """Give the stack rules that wait for nothing: an argument of the generator, not an edit."""
    rules = folder / "rules"
    rules.mkdir()
    for name, text in files(Scope("orders"), STRICT, every_s=1, patience="0s").items():
        (rules / name).write_text(text)
    extra = {"PYTHONPATH": str(SERVICES), "DEVSTACK_RULES": str(rules)}
    # One long sweep: a stuck order stays stuck, and a breaker that opened stays open.
    slow = {"ORDERS_WORKER_STALLED_AFTER_S": "600", "ORDERS_UPSTREAM_BREAKER_RESET_S": "30"}
    # A meinheld process uses one connection at a time, of several: only threads can want them all.
    threads = {
        "ORDERS_API_WORKER_CLASS": "gthread",
        "ORDERS_API_WORKERS": "1",
        "ORDERS_DATABASE_POOL_SIZE": "8",
        "ORDERS_DATABASE_CONNECT_TIMEOUT_S": "10",
    }
    return os.environ | SETTINGS | slow | threads | extra


def drill(stack: Stack) -> int:
    """Make one fault after the other."""
    prometheus = Prometheus(stack)
    peace(stack)
    say(ROW.format("FAULT", "ALERT", "BEFORE", "AFTER", "FIRED"))
    missed: set[str] = set()
    for fault in FAULTS:
        missed |= set(fault.alerts) - tried(stack, prometheus, fault)
    for alert, reason in ELSEWHERE.items():
        say(ROW.format("(not here)", alert, "", "", f"promtool only: {reason}"))
    unnamed = every() - set(ELSEWHERE) - {alert for fault in FAULTS for alert in fault.alerts}
    say(f"\n  {len(every())} alerts, {len(every()) - len(ELSEWHERE)} made to fire, missed: "
        f"{', '.join(sorted(missed | unnamed)) or 'none'}")  # fmt: skip
    return 1 if missed | unnamed else 0


def tried(stack: Stack, prometheus: Prometheus, fault: Fault) -> set[str]:
    """Make a fault, watch for its alerts while and after, mend it; return those that fired."""
    before = set(prometheus.firing())
    began_at = broken_at = time.monotonic()
    fired: dict[str, float] = {}
    with ThreadPoolExecutor(1) as aside:
        breaking = aside.submit(fault.make, stack)
        while len(fired) < len(fault.alerts) and time.monotonic() - broken_at < WITHIN_S:
            broken_at = broken_at if breaking.done() else time.monotonic()
            for alert in set(fault.alerts) & set(prometheus.firing()) - set(fired):
                fired[alert] = time.monotonic() - began_at
            time.sleep(0.5)
        breaking.result()
    fault.mend(stack)
    for alert in fault.alerts:
        after = f"{fired[alert]:.0f} s" if alert in fired else "-"
        already = "firing" if alert in before else "quiet"
        say(ROW.format(fault.title, alert, already, after, "yes" if alert in fired else "NO"))
    return set(fired)


def every() -> set[str]:
    """Return the names of all alerts."""
    groups = [*service_rules(Scope("orders"), STRICT), *platform_rules()]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
