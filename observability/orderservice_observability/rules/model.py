"""Rules as data, and how they are written down."""

from typing import Any, Final

import msgspec

PAGE: Final = "page"  # somebody is woken
TICKET: Final = "ticket"  # somebody looks in working hours
NONE: Final = "none"  # nobody: a machine checks that it fires


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recording rule."""

    record: str
    expr: str
    labels: dict[str, str] = {}


class Alert(msgspec.Struct, frozen=True):
    """An alerting rule. `dashboard` is the uid of the one to look at first.

    `kept` says for how long the expression must hold. `labels` tells rules of one name apart.
    `about` are the labels that the dashboard's choices namespace and service take; none where the
    alert is about no service.
    """

    name: str
    expr: str
    severity: str
    summary: str
    description: str
    dashboard: str
    kept: str = "0s"
    labels: dict[str, str] = {}
    about: tuple[str, ...] = ("namespace", "service")

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it.

        Links are paths: only Alertmanager's templates know the hosts of runbook and Grafana.
        """
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.kept,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"runbook.md#{self.name.lower()}",
                "dashboard": f"/d/{self.dashboard}{self._choices()}",
            },
        }

    def _choices(self) -> str:
        if not self.about:
            return ""
        namespace, service = self.about
        # A template sees the labels of the expression only; that of `absent()` has no namespace.
        value = self.labels.get(service) or f"{{{{ $labels.{service} }}}}"
        within = f"{{{{ with $labels.{namespace} }}}}&var-namespace={{{{ . }}}}{{{{ end }}}}"
        return f"?var-service={value}{within}"


class Group(msgspec.Struct, frozen=True):
    """Rules that are evaluated one after another, every `every_s` seconds."""

    name: str
    rules: tuple[Record | Alert, ...]
    every_s: int

    def written(self) -> dict[str, Any]:
        """Return the group as Prometheus reads it."""
        rules = [
            rule.rule() if isinstance(rule, Alert) else msgspec.to_builtins(rule)
            for rule in self.rules
        ]
        return {"name": self.name, "interval": f"{self.every_s}s", "rules": rules}
