"""Outages of twenty minutes, sped up by settings: every wait is shorter, none is left out.

The retry tiers' delays are policies of the broker, so they are changed there, as a person would.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import requests

from failover.stack import Stack

SPEED: Final = float(os.environ.get("FAILOVER_SPEED", "40"))
OUTAGE_S: Final = 20 * 60 / SPEED


def sped_up() -> dict[str, str]:
    """Return the settings whose defaults are minutes, divided by `SPEED`."""
    waits = {
        "ORDERS_WORKER_STALLED_AFTER_S": 900,
        "ORDERS_WORKER_SWEEP_S": 15,
        "ORDERS_UPSTREAM_BREAKER_RESET_S": 30,
        "ORDERS_NOTIFICATION_FIRST_RETRY_S": 5,
        "ORDERS_NOTIFICATION_LONGEST_RETRY_S": 21_600,
        "ORDERS_NOTIFICATION_GIVE_UP_AFTER_S": 259_200,
        "ORDERS_NOTIFICATION_SWEEP_S": 2,
    }
    quick = {
        "ORDERS_UPSTREAM_BACKOFF_BASE_S": "0.05",
        "ORDERS_UPSTREAM_BACKOFF_JITTER_S": "0.05",
        "ORDERS_UPSTREAM_TRY_TIMEOUT_S": "1",
        "ORDERS_UPSTREAM_TIMEOUT_S": "3",
    }
    return {name: f"{wait / SPEED:g}" for name, wait in waits.items()} | quick


def speed_retries_up(stack: Stack) -> None:
    """Divide the delay of every retry tier by `SPEED`."""

    def faster(_policy: str, rules: dict[str, Any]) -> dict[str, Any]:
        ttl_ms = rules.get("message-ttl")
        return {} if ttl_ms is None else {"message-ttl": max(50, round(ttl_ms / SPEED))}

    change_policies(stack, faster)


def change_policies(stack: Stack, change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Change policies of the broker: `change` gets name and rules and returns other rules."""
    policies = f"{stack.broker.management_url}/api/policies/%2F"
    for policy in requests.get(policies, timeout=10).json():
        changed = change(policy["name"], policy["definition"])
        if not changed:
            continue
        policy["definition"] |= changed
        body: dict[str, Any] = {
            name: policy[name] for name in ("pattern", "definition", "priority", "apply-to")
        }
        requests.put(f"{policies}/{policy['name']}", json=body, timeout=10).raise_for_status()


@contextmanager
def failing(stack: Stack, simulator: str, status: int) -> Iterator[None]:
    """Make a simulator answer every request with an error."""
    stack.control(simulator, "PUT", "faults", {"errorRatio": 1, "errorStatus": status})
    try:
        yield
    finally:
        stack.control(simulator, "PUT", "faults", {})


@contextmanager
def away(stack: Stack, *names: str) -> Iterator[None]:
    """Cut off the servers behind some proxies: connections are reset, new ones refused."""
    for name in names:
        stack.proxies[name].cut()
    try:
        yield
    finally:
        for name in names:
            stack.proxies[name].heal()


@contextmanager
def dead(stack: Stack, name: str) -> Iterator[None]:
    """Kill a server, and start it again at the end."""
    program = stack.servers[name]
    program.kill()
    try:
        yield
    finally:
        stack.run(program.start)


OUTAGES: Final = {
    "payment 503": lambda stack: failing(stack, "payment", 503),
    "payment misrouted 404": lambda stack: failing(stack, "payment", 404),
    "payment unreachable": lambda stack: away(stack, "payment"),
    "inventory 503": lambda stack: failing(stack, "inventory", 503),
    "inventory misrouted 404": lambda stack: failing(stack, "inventory", 404),
    "webhooks 503": lambda stack: failing(stack, "webhooks", 503),
    "webhooks misrouted 404": lambda stack: failing(stack, "webhooks", 404),
    "rabbitmq dead": lambda stack: dead(stack, "rabbitmq"),
    "valkey dead": lambda stack: dead(stack, "valkey"),
    "postgres unreachable": lambda stack: away(stack, "postgres", "replica"),
}
# What the outage is of, for the checks that ask.
SUBJECTS: Final = {name: name.split()[0] for name in OUTAGES}


def pause() -> None:
    """Wait for the length of the outage."""
    time.sleep(OUTAGE_S)
