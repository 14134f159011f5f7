"""The plain rule files."""

from typing import Final

import yaml

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import EVERY_S, platform_rules, service_rules

_HEAD: Final = "# Written by `make rules` from observability/orderservice_observability.\n"


def files(
    scope: Scope, objectives: Objectives, every_s: int = EVERY_S, patience: str | None = None
) -> dict[str, str]:
    """Return the text of each file; the operator writes the same groups into PrometheusRules."""
    groups = {
        "orders.rules.yaml": service_rules(scope, objectives, every_s, patience),
        "platform.rules.yaml": platform_rules(every_s, patience),
    }
    return {
        name: _HEAD + yaml.safe_dump({"groups": made}, sort_keys=False, width=100)
        for name, made in groups.items()
    }
