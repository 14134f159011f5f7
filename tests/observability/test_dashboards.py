"""The dashboards: consistent, complete, and read by Grafana's own library without loss."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from observability import promtool
from orderservice_dashboards.drawn import written
from orderservice_dashboards.every import EVERY
from orderservice_observability.dashboards import texts

FOLDER = Path(__file__).parents[2] / "observability"
UNITS = {"s", "percentunit", "ops", "short", "bytes"}

each = pytest.mark.parametrize("name", sorted(texts()))


def panels(name: str) -> Iterator[dict[str, Any]]:
    for panel in json.loads(texts()[name])["panels"]:
        if panel["type"] != "row":
            yield panel


def test_the_committed_dashboards_are_what_the_code_draws() -> None:
    assert texts() == {dashboard.name: written(dashboard) for dashboard in EVERY}, (
        "run `make dashboards`"
    )


@each
def test_grafanas_library_reads_a_dashboard_and_loses_nothing(name: str) -> None:
    register_default_plugins()
    committed = json.loads(texts()[name])
    read = Dashboard.from_json(committed)
    copy = json.loads(json.dumps(read, cls=JSONEncoder))
    assert copy == committed


@each
def test_every_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    for panel in panels(name):
        title = panel["title"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, title
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], title
        source = "${logs}" if panel["type"] == "logs" else "${datasource}"
        assert panel["datasource"]["uid"] == source, title
        assert panel["targets"], title


@each
def test_panels_do_not_overlap_and_titles_are_not_repeated(name: str) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels(name):
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & mine, panel["title"]
        cells |= mine
    titles = [panel["title"] for panel in panels(name)]
    assert len(titles) == len(set(titles))


@each
def test_every_dashboard_has_the_same_choices_and_links(name: str) -> None:
    dashboard = json.loads(texts()[name])
    choices = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert choices == ["datasource", "logs", "namespace", "service", "instance", "runbooks"]
    assert dashboard["uid"] == f"orders-{name}"
    assert [link["type"] for link in dashboard["links"]] == ["dashboards", "link"]


@each
def test_every_expression_is_about_the_chosen_service_or_resource(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            chosen = ("$namespace", "$instance")
            assert any(word in target["expr"] for word in chosen), target["expr"]


@each
def test_every_dashboard_marks_alerts_deployments_and_load_tests(name: str) -> None:
    marks = {
        annotation["name"]: annotation
        for annotation in json.loads(texts()[name])["annotations"]["list"]
    }
    assert set(marks) == {"Alerts", "Deployments", "Load tests"}
    assert "orders_build_info" in marks["Deployments"]["expr"]
    load_tests = marks["Load tests"]
    assert (load_tests["datasource"]["uid"], load_tests["target"]["tags"]) == (
        "-- Grafana --",
        ["loadtest"],
    )


def test_quantiles_are_called_by_their_standard_names() -> None:
    for name in texts():
        for panel in panels(name):
            legends = [target.get("legendFormat", "") for target in panel["targets"]]
            words = [panel["title"], *legends]
            assert not [word for word in words if re.search(r"\b(half|9[59] %)", word)], words


@pytest.mark.parametrize(
    ("board", "kind", "words"),
    [
        ("runtime", "timeseries", "orders_build_info"),
        ("runtime", "timeseries", "container_cpu_usage_seconds_total"),
        ("runtime", "timeseries", "container_cpu_cfs_throttled_periods_total"),
        ("runtime", "timeseries", "container_memory_working_set_bytes"),
        ("runtime", "logs", "$namespace"),
        ("api", "timeseries", "gateway_requests_total"),
    ],
)
def test_a_board_shows_what_is_asked_on_call(board: str, kind: str, words: str) -> None:
    kinds = {panel["type"] for panel in panels(board) if words in json.dumps(panel["targets"])}
    assert kind in kinds


def test_the_apis_latency_leads_to_traces_and_reads_have_an_objective() -> None:
    (latency,) = [panel for panel in panels("api") if panel["title"] == "Duration, p99"]
    assert latency["targets"][0]["exemplar"]
    titles = [panel["title"] for panel in panels("overview")]
    assert [
        title for title in titles if title.startswith("Reads answered in time: budget left, 3 d")
    ]


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    """Expressions whose series exist only in a cluster are read by no other test."""
    expressions = [
        target["expr"]
        for name in texts()
        for panel in panels(name)
        if panel["type"] != "logs"
        for target in panel["targets"]
    ]
    marks = [
        annotation["expr"]
        for name in texts()
        for annotation in json.loads(texts()[name])["annotations"]["list"]
        if "expr" in annotation
    ]
    filled = [re.sub(r"\$__\w+", "5m", expr) for expr in (*expressions, *marks)]
    rules = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(filled)]
    file = tmp_path / "asked.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    process = promtool.run("check", "rules", str(file))
    assert process.returncode == 0, process.stdout + process.stderr
