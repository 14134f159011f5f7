"""Recording and alerting rules of one order service, and of the platform around it."""

from typing import Any, Final

import msgspec

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import burn, cluster, platform, symptoms
from orderservice_observability.rules.model import Alert, Group, Links, Record

# Seconds between evaluations. A guess: half a minute is soon enough for a page.
EVERY_S: Final = 30
NO_LINKS: Final = Links()


def service_rules(
    scope: Scope,
    objectives: Objectives,
    every_s: int = EVERY_S,
    patience: str | None = None,
    links: Links = NO_LINKS,
) -> list[dict[str, Any]]:
    """Return the groups of one order service; `patience` replaces every `for` (drills, tests)."""
    slo: tuple[Record | Alert, ...] = (
        *burn.records(scope, objectives, every_s),
        *burn.alerts(scope, objectives),
    )
    groups = [
        Group("orders-slo", slo, every_s),
        Group("orders-symptoms", tuple(symptoms.alerts(scope, objectives)), every_s),
        Group("orders-cluster", tuple(cluster.alerts(scope)), every_s),
    ]  # fmt: skip
    return [_patient(group, patience).written(links) for group in groups]


def platform_rules(
    every_s: int = EVERY_S, patience: str | None = None, links: Links = NO_LINKS
) -> list[dict[str, Any]]:
    """Return the groups about the operator and all its resources, and the watchdog."""
    group = Group("orders-platform", tuple(platform.alerts()), every_s)
    return [_patient(group, patience).written(links)]


def _patient(group: Group, patience: str | None) -> Group:
    if patience is None:
        return group
    rules = (
        msgspec.structs.replace(rule, held_for=patience) if isinstance(rule, Alert) else rule
        for rule in group.rules
    )
    return msgspec.structs.replace(group, rules=tuple(rules))
