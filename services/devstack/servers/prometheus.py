"""Prometheus over the stack: scrapes the admin ports and evaluates the rules of `observability/`.

Labels are those of the operator's ServiceMonitor, so that rules and dashboards are the same here
and in a cluster.
"""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from devstack.component import Component, log_file, server_environment
from devstack.packages import prometheus
from devstack.services import answers
from devstack.settings import RULES, Settings

HOST = "127.0.0.1"
PROCESSES = ("api", "gateway", "relay", "worker", "notifier")
NAMESPACE, SERVICE, OPERATOR = "local", "orders-admin", "orderservice-operator"
OPERATOR_ABSENT = "OperatorDown"  # fires without an operator, as on the local stack
RETENTION = "4d"  # the longest window of a rule is three days
# Prometheus loses the alerts of its first 5 s, because it does not know Alertmanager yet.
# It sends them again after this time, by default 1 minute.
RESENT_AFTER = "5s"


def component(settings: Settings) -> Component:
    """Describe Prometheus; it starts only by name, with `start prometheus`."""
    folder, port = settings.state / "prometheus", settings.ports["prometheus"]
    return Component(
        name="prometheus",
        argv=(
            str(prometheus.program("prometheus")),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address={HOST}:{port}",
            f"--web.local-assets={prometheus.pages()}",
            "--enable-feature=exemplar-storage",
            f"--rules.alert.resend-delay={RESENT_AFTER}",
        ),
        environment=server_environment(settings.state),
        folder=folder,
        log=log_file(settings.state, "prometheus"),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_PROMETHEUS_PORT": port},
        prepare=partial(write_configuration, settings, folder),
        ready=partial(answers, port, "/-/ready"),
        optional=True,
    )


def write_configuration(settings: Settings, folder: Path) -> None:
    """Write the targets, the rules and the Alertmanager."""
    folder.mkdir(parents=True, exist_ok=True)
    rules = settings.rules
    if rules == RULES:
        rules = folder / "rules"
        write_rules(RULES, rules)
    # JSON is valid YAML.
    (folder / "prometheus.yaml").write_bytes(msgspec.json.encode(configuration(settings, rules)))


def write_rules(source: Path, target: Path) -> None:
    """Copy the rules of a cluster without the alert on an absent operator."""
    import yaml

    target.mkdir(exist_ok=True)
    for file in source.glob("*.rules.yaml"):
        rules = yaml.safe_load(file.read_text())
        for group in rules["groups"]:
            group["rules"] = [r for r in group["rules"] if r.get("alert") != OPERATOR_ABSENT]
        (target / file.name).write_bytes(msgspec.json.encode(rules))


def configuration(settings: Settings, rules: Path) -> dict[str, Any]:
    """Return Prometheus' configuration, with the folder of its rules."""
    interval = f"{settings.scrape_s}s"
    targets = [f"{HOST}:{settings.ports['alertmanager']}"]
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rules / "*.rules.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": targets}]}]},
        "scrape_configs": [
            {"job_name": SERVICE, "static_configs": [target(settings, p) for p in PROCESSES]},
            {"job_name": OPERATOR, "file_sd_configs": [{"files": ["operator.json"]}]},
        ],
    }


def target(settings: Settings, process: str) -> dict[str, Any]:
    """Return the admin port of one process, with the labels a pod would have."""
    labels = {
        "namespace": NAMESPACE,
        "service": SERVICE,
        "component": process,
        "pod": f"orders-{process}-0",
    }
    return {"targets": [f"{HOST}:{settings.ports[f'{process}_admin']}"], "labels": labels}
