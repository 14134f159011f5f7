"""The addresses of the service under load, and of all that a run queries or controls."""

import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from loadtest.scenario import Act, Component, Poison, Scenario, Upstream
from loadtest.target import http
from loadtest.target.local_stack import LocalStack

_ASK_EVERY_S = 1.0
# A token has 64 characters; "decline-", a dash and 20 of each purchase's own leave these.
_RUN = re.compile(r"[A-Za-z0-9_.:-]{1,35}")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class SetupFailed(Exception):
    """Correct the fault in the message, then run again; there is no verdict."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses; None if the run cannot reach it. `stack` is set for a stack of our own."""

    host: str
    inventory: str | None = None
    payment: str | None = None
    management: str | None = None
    database: str | None = None
    stack: LocalStack | None = None


def target_from_environment(host: str, environ: Mapping[str, str]) -> Target:
    """Describe a service that runs already, by `LOADTEST_*`. Raises SetupFailed if not allowed."""
    refuse_unless_allowed(host, environ.get("LOADTEST_ALLOWED_HOSTS", ""))
    return Target(
        host=host.rstrip("/"),
        inventory=environ.get("LOADTEST_INVENTORY_URL") or None,
        payment=environ.get("LOADTEST_PAYMENT_URL") or None,
        management=environ.get("LOADTEST_MANAGEMENT_URL") or None,
        database=environ.get("LOADTEST_DATABASE_URL") or None,
    )


def refuse_unless_allowed(host: str, host_list: str) -> None:
    """Prevent that a typing error puts load on a production system. Raises SetupFailed."""
    address = urlsplit(host)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SetupFailed(f"{host!r} is no host: expected http://… or https://…")
    names = _LOCAL | {name.strip().lower() for name in host_list.split(",") if name.strip()}
    if address.hostname not in names:
        raise SetupFailed(
            f"{address.hostname} is not local: set LOADTEST_ALLOWED_HOSTS={address.hostname} "
            "if it is really to be put under load"
        )


def refuse_unless_named(run: str, target: Target, *, workers: int) -> None:
    """Find a name that payment tokens cannot carry or workers do not know. Raises SetupFailed."""
    if run and not _RUN.fullmatch(run):
        raise SetupFailed(f"LOADTEST_RUN={run!r}: expected 1 to 35 of A-Z a-z 0-9 _ . : -")
    if workers and target.database and not run:
        raise SetupFailed(
            "--workers with LOADTEST_DATABASE_URL needs LOADTEST_RUN, the same for master and "
            "workers: the run's orders are found by it"
        )


def refuse_unless_there(target: Target, wait_s: float = 0) -> None:
    """Request `/health` before any load: a wrong address is not a verdict. Raises Unreachable."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            http.send("GET", f"{target.host}/health")
        except http.Unreachable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_ASK_EVERY_S)
        else:
            return


def target_of_stack(stack: LocalStack) -> Target:
    """Describe our own stack, which must have been started."""
    addresses = stack.addresses()
    return Target(
        host=stack.gateway_url,
        inventory=addresses["ORDERS_INVENTORY_URL"],
        payment=addresses["ORDERS_PAYMENT_URL"],
        management=f"{addresses['ORDERS_MANAGEMENT_URL']}/%2F",
        database=addresses["ORDERS_DATABASE_URL"],
        stack=stack,
    )


def refuse_what_cannot_be_done(scenario: Scenario, target: Target, *, by_hand: bool) -> None:
    """Return the needs of a scenario that this target does not meet. Raises SetupFailed."""
    acts = [moment.act for moment in scenario.moments]
    lacks = {
        "LOADTEST_INVENTORY_URL": target.inventory is None
        and (scenario.stock or _steers(acts, "inventory")),
        "LOADTEST_PAYMENT_URL": target.payment is None and _steers(acts, "payment"),
        "LOADTEST_MANAGEMENT_URL": target.management is None
        and any(isinstance(act, Poison) for act in acts),
        "LOADTEST_DATABASE_URL": target.database is None and scenario.seed,
        "--by-hand (somebody stops and starts components when told)": target.stack is None
        and not by_hand
        and any(isinstance(act, Component) for act in acts),
    }
    if names := [name for name, lacking in lacks.items() if lacking]:
        raise SetupFailed(f"{scenario.name} needs {', '.join(names)}")


def _steers(acts: list[Act], simulator: str) -> bool:
    return any(isinstance(act, Upstream) and act.name == simulator for act in acts)
