"""The expressions of rules and panels, as Grafana and Prometheus ask them."""

import json
import re
from typing import NamedTuple

from orderservice_observability.dashboards import texts
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import platform_rules, service_rules
from orderservice_observability.rules.cluster import KUBE_ONLY

# Orders accepted this long ago are looked at: a minute would be waited for.
OBJECTIVES = Objectives(completion_seconds=5)
# What Grafana puts in place of its variables.
VARIABLES = {
    "$namespace": ".*",
    "$service": ".*",
    "$instance": ".*",
    "$__rate_interval": "20s",
    "$__range": "10m",
}
SELECTOR = re.compile(r"[A-Za-z_:][\w:]*\{[^}]*\}")


class Query(NamedTuple):
    """An expression, and the place it was found in."""

    place: str
    expression: str

    @property
    def of_kubernetes(self) -> bool:
        """Whether these series exist only in a cluster."""
        return any(f"{name}{{" in self.expression for name in KUBE_ONLY)


def of_panels() -> list[Query]:
    """List the expressions of all panels as Grafana would ask them, and those of the choices."""
    queries = []
    for name, text in texts().items():
        board = json.loads(text)
        for panel in board["panels"]:
            # Of the logs no server is here; what they are asked is in the datasource's contract.
            for target in panel.get("targets", []) if panel["type"] != "logs" else []:
                source = f"dashboard {name}, panel {panel['title']}, {target['refId']}"
                queries.append(Query(source, _filled(target["expr"])))
        for choice in board["templating"]["list"]:
            match = re.match(r"label_values\((.+), (\w+)\)", str(choice.get("query", "")))
            if match:
                source = f"dashboard {name}, choice {choice['name']}"
                queries.append(Query(source, f"count by ({match[2]}) ({_filled(match[1])})"))
    return queries


def of_rules() -> list[Query]:
    """List what the rules rest on: whole recording rules, and every selector of an alert.

    An alert's own expression is empty while all is well, which proves nothing.
    """
    queries = []
    for group in (*service_rules(Scope("orders"), OBJECTIVES), *platform_rules()):
        for rule in group["rules"]:
            if "record" in rule:
                queries.append(Query(f"rule {rule['record']} {rule['labels']}", rule["expr"]))
                continue
            source = f"alert {rule['alert']}"
            queries += [
                Query(source, f"count({selector})") for selector in SELECTOR.findall(rule["expr"])
            ]
    return queries


def alert_expressions() -> list[Query]:
    """List the expressions of the alerts, which must be valid even without series."""
    groups = (*service_rules(Scope("orders"), OBJECTIVES), *platform_rules())
    return [
        Query(f"alert {rule['alert']}", rule["expr"])
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    ]


def _filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression
