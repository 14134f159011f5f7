"""Rules as data, and their format for Prometheus."""

from typing import Any, Final

import msgspec

PAGE: Final = "page"  # pages a person
TICKET: Final = "ticket"  # for working hours
NONE: Final = "none"  # for no person: a program checks that it fires


class Links(msgspec.Struct, frozen=True):
    """The published URLs of runbook and dashboards; if empty, alerts carry only paths.

    Alertmanager's template completes paths (observability/alertmanager/links.tmpl).
    """

    runbook_base_url: str = ""
    dashboard_base_url: str = ""

    def runbook(self, alert: str) -> str:
        """Return the URL of an alert's section in the runbook."""
        page = f"runbook.md#{alert.lower()}"
        return f"{self.runbook_base_url.rstrip('/')}/{page}" if self.runbook_base_url else page

    def dashboard(self, path: str) -> str:
        """Return the URL of a dashboard; `path` begins with a slash."""
        return f"{self.dashboard_base_url.rstrip('/')}{path}"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A recording rule: the name of its series, the expression and further labels."""

    record: str
    expr: str
    labels: dict[str, str] = {}


class Alert(msgspec.Struct, frozen=True):
    """An alerting rule. `dashboard` is the uid of the dashboard to open first.

    `held_for` is how long the expression must hold. `labels` distinguish rules of the same name.
    `keep_firing` outlives a series that disappears with its process or with PostgreSQL for a while.
    `about` are the labels for the dashboard's variables namespace and service; none if the alert is
    about no service. `shows` is the period for the dashboard, as Grafana writes it (`12h`), if it
    is longer than the usual three hours.
    """

    name: str
    expr: str
    severity: str
    summary: str
    description: str
    dashboard: str
    held_for: str = "0s"
    keep_firing: str | None = None
    labels: dict[str, str] = {}
    about: tuple[str, ...] = ("namespace", "service")
    shows: str = ""

    def rule(self, links: Links) -> dict[str, Any]:
        """Return the rule in Prometheus' format."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.held_for,
            **({"keep_firing_for": self.keep_firing} if self.keep_firing else {}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": links.runbook(self.name),
                "dashboard": links.dashboard(f"/d/{self.dashboard}{self._choices()}"),
            },
        }

    def _choices(self) -> str:
        if not self.about:
            return ""
        period = f"&from=now-{self.shows}&to=now" if self.shows else ""
        return self._service() + period

    def _service(self) -> str:
        namespace, service = self.about
        # A template sees the labels of the expression only; that of `absent()` has no namespace.
        value = self.labels.get(service) or f"{{{{ $labels.{service} }}}}"
        parameter = f"{{{{ with $labels.{namespace} }}}}&var-namespace={{{{ . }}}}{{{{ end }}}}"
        return f"?var-service={value}{parameter}"


class Group(msgspec.Struct, frozen=True):
    """Rules that are evaluated one after another, every `every_s` seconds."""

    name: str
    rules: tuple[Record | Alert, ...]
    every_s: int

    def written(self, links: Links) -> dict[str, Any]:
        """Return the group in Prometheus' format."""
        rules = [
            rule.rule(links) if isinstance(rule, Alert) else msgspec.to_builtins(rule)
            for rule in self.rules
        ]
        return {"name": self.name, "interval": f"{self.every_s}s", "rules": rules}
