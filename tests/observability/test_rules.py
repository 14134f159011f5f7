"""The rules: every alert fires when it should and only then, and leads to runbook and dashboard."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from devstack.servers.prometheus import RETENTION
from observability import cases, promtool
from orders.telemetry import buckets
from orderservice_observability.objectives import (
    COMPLETION_BUCKETS,
    HTTP_BUCKETS,
    Objectives,
    Scope,
)
from orderservice_observability.rules import platform_rules, service_rules
from orderservice_observability.rules.model import Links
from orderservice_observability.written import files

FOLDER = Path(__file__).parents[2] / "observability"
Rule = dict[str, Any]


def rules() -> list[Rule]:
    groups = [*service_rules(Scope("orders"), Objectives()), *platform_rules()]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if "alert" in rule]


def key(rule: Rule) -> tuple[str, str]:
    """Distinguish alerts of one name by the labels they set."""
    labels = {name: value for name, value in rule["labels"].items() if name != "severity"}
    return rule["alert"], ",".join(f'{name}="{value}"' for name, value in labels.items())


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    counts = Counter((*case.key, case.fires) for case in cases.every())
    untested = [
        (*key(rule), fires)
        for rule in alerts()
        for fires in (True, False)
        if not counts[*key(rule), fires] and (rule["alert"], fires) != ("Watchdog", False)
    ]
    assert untested == []
    assert {case.key for case in cases.every()} <= {key(rule) for rule in alerts()}


def test_promtool_finds_that_all_cases_hold(tmp_path: Path) -> None:
    assert promtool.failures(tmp_path, list(cases.every())) == ""


def test_promtool_sees_a_case_that_does_not_hold(tmp_path: Path) -> None:
    wrong = promtool.Case("wrong", "Watchdog", {}, fires=False)
    assert "FAILED" in promtool.failures(tmp_path, [wrong])


def test_the_local_prometheus_keeps_what_the_longest_window_asks_for() -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    windows = [
        int(number) * seconds[unit]
        for rule in rules()
        for number, unit in re.findall(r"\[(\d+)([smhd])\b", rule["expr"])
    ]
    assert max(windows) == 3 * 86400
    assert int(RETENTION[:-1]) * seconds[RETENTION[-1]] > max(windows)


def test_the_plain_files_are_what_the_generator_writes() -> None:
    for name, text in files(Scope("orders"), Objectives()).items():
        assert (FOLDER / "prometheus" / name).read_text() == text, "run `make rules`"


def test_every_alert_says_what_it_is_and_where_to_look() -> None:
    dashboards = {path.stem for path in FOLDER.rglob("dashboards/*.json")}
    headings = re.findall(r"^### (\w+)$", (FOLDER / "runbook.md").read_text(), re.MULTILINE)
    for rule in alerts():
        notes = rule["annotations"]
        assert notes["summary"].endswith("."), rule["alert"]
        assert notes["description"], rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket", "none"}
        assert notes["runbook_url"] == f"runbook.md#{rule['alert'].lower()}"
        match = re.match(r"/d/orders-(\w+)", notes["dashboard"])
        assert match, rule["alert"]
        assert match[1] in dashboards
    assert Counter(headings) == Counter({rule["alert"] for rule in alerts()})


def test_links_are_whole_where_runbook_and_grafana_are_known() -> None:
    links = Links("https://docs.example/orders", "https://grafana.example/")
    groups = [
        *service_rules(Scope("orders"), Objectives(), links=links),
        *platform_rules(links=links),
    ]
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        notes = rule["annotations"]
        assert notes["runbook_url"].startswith("https://docs.example/orders/runbook.md#")
        assert notes["dashboard"].startswith("https://grafana.example/d/")


def test_no_link_to_a_dashboard_has_an_empty_choice(tmp_path: Path) -> None:
    links = promtool.links(tmp_path, [case for case in cases.every() if case.fires])
    assert set(links) == {rule["alert"] for rule in alerts()}
    assert [link for each in links.values() for link in each if re.search(r"=(&|$)", link)] == []
    assert links["OrderPodCrashLooping"] == [
        "/d/orders-runtime?var-service=orders-admin&var-namespace=local"
    ]
    assert set(links["OrderServiceNotReady"]) == {
        "/d/orders-operator?var-service=a&var-namespace=shop"
    }
    assert links["Watchdog"] == ["/d/orders-operator"]


def test_objectives_are_held_at_buckets_that_the_services_count_in() -> None:
    assert [float(bound) for bound in buckets.HTTP_BUCKETS] == list(HTTP_BUCKETS)
    assert [float(bound) for bound in buckets.COMPLETION_BUCKETS] == list(COMPLETION_BUCKETS)


@pytest.mark.parametrize(("limit_ms", "bucket"), [(300, "0.3"), (299, "0.25"), (1, "0.005")])
def test_an_objective_between_two_buckets_is_held_to_the_lower_one(
    limit_ms: int, bucket: str
) -> None:
    groups = service_rules(Scope("a", "b"), Objectives(latency_ms=limit_ms))
    [bad] = [
        rule["expr"]
        for rule in groups[0]["rules"]
        if rule.get("record") == "orders:slo_bad:rate5m"
        and rule["labels"]["slo"] == "create-latency"
    ]
    assert f'le="{bucket}"' in bad


def test_a_service_watches_its_own_series_only() -> None:
    for rule in (
        r for group in service_rules(Scope("a", "b"), Objectives()) for r in group["rules"]
    ):
        selectors = re.findall(r"\w\{([^}]*)\}", rule["expr"])
        assert selectors, rule
        assert all('namespace="b"' in selector for selector in selectors), rule["expr"]
