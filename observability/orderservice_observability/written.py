"""The rules as files: plain ones for Prometheus, PrometheusRules for its operator."""

from typing import Any, Final

import yaml

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import EVERY_S, NO_LINKS, platform_rules, service_rules
from orderservice_observability.rules.model import Links

_HEAD: Final = "# Written by `make rules` from observability/orderservice_observability.\n"


def files(
    scope: Scope,
    objectives: Objectives,
    every_s: int = EVERY_S,
    patience: str | None = None,
    links: Links = NO_LINKS,
) -> dict[str, str]:
    """Return the text of each plain file; our operator writes the same groups for each resource."""
    groups = {
        "orders.rules.yaml": service_rules(scope, objectives, every_s, patience, links),
        "platform.rules.yaml": platform_rules(every_s, patience, links),
    }
    return {name: _HEAD + _yaml({"groups": rules}) for name, rules in groups.items()}


def manifests(scope: Scope, objectives: Objectives, links: Links = NO_LINKS) -> str:
    """Return both as PrometheusRules, for users without our operator."""
    groups = {
        "orders": service_rules(scope, objectives, links=links),
        "platform": platform_rules(links=links),
    }
    return _HEAD + "---\n".join(_yaml(_rule(name, rules)) for name, rules in groups.items())


def _rule(name: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"orders-rules-{name}"},
        "spec": {"groups": groups},
    }


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=100)
    return text
