"""Prometheus beside a running stack."""

from typing import Any
from urllib.parse import urlencode

from loadtest.drill.stack import Stack


class Prometheus:
    """Prometheus beside a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._port = stack, stack.ports["prometheus"]

    def get(self, path: str, **query: str) -> Any:
        """Query the HTTP API. Raises AssertionError for an error and for a warning."""
        reply = self._stack.request("GET", f"/api/v1/{path}?{urlencode(query)}", port=self._port)
        assert reply.status == 200, reply.body
        assert not reply.body.get("warnings"), reply.body
        return reply.body["data"]

    def samples(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; NaN samples are omitted."""
        answer = self.get("query", query=expression)
        series = (
            [{"value": answer["result"]}] if answer["resultType"] == "scalar" else answer["result"]
        )
        return [sample for sample in series if sample["value"][1] != "NaN"]

    def firing(self) -> dict[str, str]:
        """Return the alerts that fire, with their severity."""
        return {
            alert["labels"]["alertname"]: alert["labels"]["severity"]
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == "firing"
        }
