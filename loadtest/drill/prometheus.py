"""The running stack's Prometheus, and what is asked of it: the expressions of rules and panels."""

import json
import re
from typing import Any, NamedTuple
from urllib.parse import urlencode

from loadtest.drill.stack import Stack
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


class Asked(NamedTuple):
    """An expression, and where it stands."""

    place: str
    expression: str

    @property
    def of_kubernetes(self) -> bool:
        """Whether only a cluster has these series."""
        return any(f"{name}{{" in self.expression for name in KUBE_ONLY)


class Prometheus:
    """Prometheus beside a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._port = stack, stack.ports["prometheus"]

    def get(self, path: str, **query: str) -> Any:
        """Ask the HTTP API. Raises AssertionError for an error and for a warning."""
        reply = self._stack.request("GET", f"/api/v1/{path}?{urlencode(query)}", port=self._port)
        assert reply.status == 200, reply.body
        assert not reply.body.get("warnings"), reply.body
        return reply.body["data"]

    def samples(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; samples that are not a number are none."""
        found = self.get("query", query=expression)
        series = (
            [{"value": found["result"]}] if found["resultType"] == "scalar" else found["result"]
        )
        return [one for one in series if one["value"][1] != "NaN"]

    def firing(self) -> dict[str, str]:
        """Return the alerts that fire, with their severity."""
        return {
            alert["labels"]["alertname"]: alert["labels"]["severity"]
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == "firing"
        }


def of_panels() -> list[Asked]:
    """List the expressions of all panels as Grafana would ask them, and those of the choices."""
    asked = []
    for name, text in texts().items():
        board = json.loads(text)
        for panel in board["panels"]:
            # Of the logs no server is here; what they are asked is in the datasource's contract.
            for target in panel.get("targets", []) if panel["type"] != "logs" else []:
                place = f"dashboard {name}, panel {panel['title']}, {target['refId']}"
                asked.append(Asked(place, _filled(target["expr"])))
        for choice in board["templating"]["list"]:
            found = re.match(r"label_values\((.+), (\w+)\)", str(choice.get("query", "")))
            if found:
                place = f"dashboard {name}, choice {choice['name']}"
                asked.append(Asked(place, f"count by ({found[2]}) ({_filled(found[1])})"))
    return asked


def of_rules() -> list[Asked]:
    """List what the rules rest on: whole recording rules, and every selector of an alert.

    An alert's own expression is empty while all is well, which proves nothing.
    """
    asked = []
    for group in (*service_rules(Scope("orders"), OBJECTIVES), *platform_rules()):
        for rule in group["rules"]:
            if "record" in rule:
                asked.append(Asked(f"rule {rule['record']} {rule['labels']}", rule["expr"]))
                continue
            place = f"alert {rule['alert']}"
            asked += [Asked(place, f"count({one})") for one in SELECTOR.findall(rule["expr"])]
    return asked


def alert_expressions() -> list[Asked]:
    """List the expressions of the alerts, which must be valid whatever they find."""
    groups = (*service_rules(Scope("orders"), OBJECTIVES), *platform_rules())
    return [
        Asked(f"alert {rule['alert']}", rule["expr"])
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    ]


def _filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression
