"""The other files in `observability/`, checked by the tools that read them if available.

Grafana cannot, and a collector takes minutes to build (`test_collector`): their files are held to
their own references here.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from devstack.packages import prometheus
from kube import required
from observability import promtool
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.written import files

FOLDER = Path(__file__).parents[2] / "observability"


def read(path: str) -> Any:
    return yaml.safe_load((FOLDER / path).read_text())


def test_prometheus_accepts_the_rules() -> None:
    process = promtool.run("check", "rules", *map(str, (FOLDER / "prometheus").glob("*.yaml")))
    assert process.returncode == 0, process.stdout + process.stderr


def test_prometheus_accepts_the_rules_of_an_objective_between_seconds(tmp_path: Path) -> None:
    rules = files(Scope("orders"), Objectives(completion_seconds=3))  # held to the bucket of 2.5 s
    for name, text in rules.items():
        (tmp_path / name).write_text(text)
    process = promtool.run("check", "rules", *map(str, tmp_path.iterdir()))
    assert process.returncode == 0, process.stdout + process.stderr


def amtool(*arguments: str) -> str:
    prometheus.RELEASE.fetch()
    return subprocess.run(
        [str(prometheus.program("amtool")), *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def kustomized() -> list[dict[str, Any]]:
    process = subprocess.run(
        [str(required.tool("kubectl")), "kustomize", str(FOLDER)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return list(yaml.safe_load_all(process.stdout))


def test_alertmanager_accepts_the_routing_and_sends_each_severity_where_it_belongs() -> None:
    config = str(FOLDER / "alertmanager" / "alertmanager.yaml")
    assert "1 templates" in amtool("check-config", config)
    routes = {
        "severity=page": "pages",
        "severity=ticket": "tickets",
        "alertname=Watchdog": "watchdog",
    }
    for label, receiver in routes.items():
        output = amtool("config", "routes", "test", "--config.file", config, label)
        assert output.strip() == receiver


def test_a_ticket_links_to_runbook_and_dashboard_where_kustomize_puts_the_template(
    tmp_path: Path,
) -> None:
    [config_map] = [
        manifest
        for manifest in kustomized()
        if manifest["metadata"]["name"] == "orders-alertmanager"
    ]
    for name, text in config_map["data"].items():
        (tmp_path / name).write_text(text)
    assert "1 templates" in amtool("check-config", str(tmp_path / "alertmanager.yaml"))
    receivers = {
        entry["name"]: entry for entry in read("alertmanager/alertmanager.yaml")["receivers"]
    }
    [mail] = receivers["tickets"]["email_configs"]
    notes = {"runbook_url": "runbook.md#a", "dashboard": "/d/b?var-service=c"}
    notification = {"alerts": [{"labels": {"severity": "ticket"}, "annotations": notes}]}
    (tmp_path / "told.json").write_text(json.dumps(notification))
    text = amtool(
        "template", "render", f"--template.glob={tmp_path}/*.tmpl",
        f"--template.text={mail['text']}", f"--template.data={tmp_path}/told.json",
    )  # fmt: skip
    assert "https://docs.invalid/observability/runbook.md#a" in text
    assert "https://grafana.invalid/d/b?var-service=c" in text


def test_no_alert_of_one_cluster_service_or_queue_hides_those_of_another() -> None:
    config = read("alertmanager/alertmanager.yaml")
    rules, labels = config["inhibit_rules"], {"cluster", "namespace", "service"}
    assert all(labels <= set(rule["equal"]) for rule in rules)
    assert labels <= set(config["route"]["group_by"])
    [worker] = [rule for rule in rules if 'component="worker"' in rule["source_matchers"]]
    assert 'queue="order-processing"' in worker["target_matchers"]


def test_kustomize_builds_all_of_it() -> None:
    manifests = kustomized()
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds.count("PrometheusRule") == 2
    boards = [
        manifest
        for manifest in manifests
        if manifest["metadata"].get("labels", {}).get("grafana_dashboard")
    ]
    drawn = {name for manifest in boards for name in manifest["data"]}
    expected = {f"orders-{path.stem}.json" for path in FOLDER.rglob("dashboards/*.json")}
    assert drawn == expected


def test_the_collectors_pipeline_is_made_of_what_is_configured() -> None:
    configuration = read("collector/collector.yaml")
    [pipeline] = configuration["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(configuration[kind])
    assert set(configuration["service"]["extensions"]) == set(configuration["extensions"])
    order = pipeline["processors"]
    assert order[0] == "memory_limiter"
    assert order[-1] == "batch"


def test_the_collector_keeps_errors_and_slow_traces_and_masks_what_looks_private() -> None:
    processors = read("collector/collector.yaml")["processors"]
    policies = {policy["type"]: policy for policy in processors["tail_sampling"]["policies"]}
    assert policies["status_code"]["status_code"]["status_codes"] == ["ERROR"]
    assert policies["latency"]["latency"]["threshold_ms"] <= 1000
    masks = [re.compile(pattern) for pattern in processors["redaction"]["blocked_values"]]
    for private in (
        "4929 5310 9123 7485",
        "4929531091237485",
        "3782-822463-10005",
        "jane@example.org",
        "whsec_c2VjcmV0",
    ):
        assert any(mask.search(private) for mask in masks), private
    uuid = "12345678-1234-4123-8123-123456789012"
    for harmless in ("4711", "00f067aa0ba902b7", "/api/orders/12345678", uuid):
        assert not any(mask.search(harmless) for mask in masks), harmless


def test_the_collector_lets_spans_keep_their_service() -> None:
    attributes = read("collector/collector.yaml")["processors"]["redaction"]["allowed_keys"]
    assert {"service.name", "k8s.namespace.name", "exception.type"} <= set(attributes)
    assert not {"exception.message", "exception.stacktrace"} & set(attributes)


def test_grafanas_sources_lead_to_each_other() -> None:
    sources = read("grafana/provisioning/datasources/datasources.yaml")["datasources"]
    uids = {source["uid"] for source in sources}
    text = (FOLDER / "grafana/provisioning/datasources/datasources.yaml").read_text()
    assert set(re.findall(r"(?:datasourceUid|alertmanagerUid): (\S+)", text)) <= uids
    [loki] = [source for source in sources if source["type"] == "loki"]
    line = '{"event":"order.advanced","correlationId":"a-1","traceId":"' + "0af7" * 8 + '"}'
    matches = [
        re.search(field["matcherRegex"], line) for field in loki["jsonData"]["derivedFields"]
    ]
    assert [match[1] for match in matches if match] == ["0af7" * 8, "a-1"]


def runbook_commands() -> list[str]:
    """Return each block of commands of the runbook; blocks of SQL are none."""
    text = (FOLDER / "runbook.md").read_text()
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [block for block in blocks if not block.lstrip().startswith("SELECT")]


def test_the_runbooks_commands_can_be_pasted_into_a_shell() -> None:
    commands = runbook_commands()
    assert len(commands) > 10
    for command in commands:
        process = subprocess.run(
            ["bash", "-n"], input=command, capture_output=True, text=True, check=False, timeout=10
        )
        assert process.returncode == 0, command + process.stderr


def test_the_runbook_reads_the_logs_of_every_pod_and_names_paths() -> None:
    text = (FOLDER / "runbook.md").read_text()
    assert "logs deploy/$" not in text, "that is one pod of them"
    for line in text.splitlines():
        if "-m devstack" in line:
            assert line.strip().startswith("PYTHONPATH=services .venv/bin/python"), line
