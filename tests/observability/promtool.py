"""promtool, the tool that comes with Prometheus, on rules written by the generator."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from devstack.packages import prometheus
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import platform_rules, service_rules

NAMESPACE = 'namespace="local"'
LABELS = f'{NAMESPACE},service="orders-admin",instance="a:1",pod="p",component="x"'


class Case(NamedTuple):
    """Series, and what an alert makes of them at a time.

    `series` maps a selector to values in promtool's notation, one a minute. `matchers` tell alerts
    of one name apart. `over` is how far back from then it is looked for.
    """

    title: str
    alert: str
    series: dict[str, str]
    fires: bool
    after: str = "30m"
    matchers: str = ""
    every_s: int = 60
    over: str = "1m"

    @property
    def slo(self) -> str:
        match = re.match(r'slo="([^"]+)"', self.matchers)
        return match[1] if match else ""

    @property
    def key(self) -> tuple[str, str]:
        return self.alert, self.matchers

    @property
    def mixes(self) -> bool:
        """Whether series of other namespaces may be added without changing the result."""
        absence = not self.series or self.alert == "OrderProcessAbsent"
        return not absence and all(NAMESPACE in selector for selector in self.series)

    def expectation(self, namespace: str = "") -> dict[str, Any]:
        """Ask whether the alert fires, in one namespace or at all."""
        selector = ",".join(filter(None, (f'alertname="{self.alert}"', self.matchers, namespace)))
        fired = f'last_over_time(ALERTS{{alertstate="firing",{selector}}}[{self.over}])'
        number = f"count({fired}) > 0 or vector(0)"
        return {
            "expr": f"({number}) > bool 0",
            "eval_time": self.after,
            "exp_samples": [{"labels": "{}", "value": int(self.fires)}],
        }


def tests(cases: list[Case]) -> list[dict[str, Any]]:
    """Write cases as promtool's tests: in one test what can be told apart by its namespace.

    promtool makes a database for each test, which takes longer than the test.
    """
    mixed = [(f'namespace="case-{n}"', case) for n, case in enumerate(cases) if case.mixes]
    single_cases = [("", case) for case in cases if not case.mixes]
    return [
        _test(each) for each in ([mixed] if mixed else []) + [[single] for single in single_cases]
    ]


def _test(cases: list[tuple[str, Case]]) -> dict[str, Any]:
    series = {
        selector.replace(NAMESPACE, namespace or NAMESPACE): values
        for namespace, case in cases
        for selector, values in case.series.items()
    }
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [case.expectation(namespace) for namespace, case in cases],
    }


def own(metric: str, fields: str = "") -> str:
    """Name a series of the order service."""
    return f"{metric}{{{LABELS}{',' if fields else ''}{fields}}}"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run promtool; fetched once if it is not here."""
    prometheus.RELEASE.fetch()
    return subprocess.run(
        [str(prometheus.program("promtool")), *arguments],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def failures(folder: Path, cases: list[Case]) -> str:
    """Run cases; the empty string when all of them hold.

    Each is evaluated with the rules of its own objective, or with those of none: all together would
    take minutes.
    """
    kinds = sorted({(case.every_s, case.slo) for case in cases})
    outputs = [
        _run(
            folder / f"{every_s}-{slo}",
            tests([case for case in cases if (case.every_s, case.slo) == (every_s, slo)]),
            every_s,
            slo,
        )
        for every_s, slo in kinds
    ]
    return "".join(outputs)


def links(folder: Path, cases: list[Case]) -> dict[str, list[str]]:
    """Render the links to dashboards, by alert: promtool shows what it got and did not expect."""
    by_alert: dict[str, list[str]] = {}
    for number, case in enumerate(cases):
        test = _test([("", case)])
        del test["promql_expr_test"]
        test["alert_rule_test"] = [
            {"eval_time": case.after, "alertname": case.alert, "exp_alerts": []}
        ]
        output = _run(folder / str(number), [test], case.every_s, case.slo)
        by_alert.setdefault(case.alert, []).extend(re.findall(r'dashboard="([^"]*)"', output))
    return by_alert


def _run(folder: Path, tests: list[dict[str, Any]], every_s: int, slo: str) -> str:
    folder.mkdir()
    groups = [*service_rules(Scope("orders"), Objectives(), every_s), *platform_rules(every_s)]
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if _slo(rule) == slo]
    document = {
        "rule_files": ["rules.json"],
        "evaluation_interval": f"{every_s}s",
        "tests": tests,
    }
    # JSON is YAML, too.
    (folder / "rules.json").write_bytes(msgspec.json.encode({"groups": groups}))
    (folder / "tests.json").write_bytes(msgspec.json.encode(document))
    process = run("test", "rules", str(folder / "tests.json"))
    return "" if process.returncode == 0 else process.stdout + process.stderr


def _slo(rule: dict[str, Any]) -> str:
    objective: str = rule.get("labels", {}).get("slo", "")
    return objective
