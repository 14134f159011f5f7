"""Every scenario there is, in the order in which one reads them."""

from importlib import import_module
from typing import Final

from loadtest.scenario import Scenario

NAMES: Final = (
    "smoke",
    "baseline",
    "stages",
    "spike",
    "soak",
    "breakpoint",
    "overload",
    "idempotency",
    "cancel-race",
    "refund",
    "ratelimit",
    "payment-degraded",
    "inventory-down",
    "redis-down",
    "primary-down",
    "replica-down",
    "receiver-down",
    "rabbitmq-down",
    "rolling-deploy",
    "deep-pages",
    "poison",
)


class UnknownScenario(Exception):
    """Name one of those that `make loadtest` lists."""


def find(name: str) -> Scenario:
    """Give a scenario by its name. Raises UnknownScenario."""
    if name not in NAMES:
        raise UnknownScenario(f"there is no scenario {name!r}: {', '.join(NAMES)}")
    module = import_module(f"loadtest.scenarios.{name.replace('-', '_')}")
    scenario: Scenario = module.SCENARIO
    return scenario


def every() -> list[Scenario]:
    """Return every scenario, in the order of `NAMES`."""
    return [find(name) for name in NAMES]
