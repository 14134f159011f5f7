"""The instructions before and after an installation name what the charts need."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import instructions
from charts.helm import ENVIRONMENT, ENVIRONMENTS, OPERATOR, Helm, only, values_of

NOTES = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {text: {{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}}
"""


def notes_of(helm: Helm, chart: Path, folder: Path, *values: str) -> str:
    """Render NOTES.txt, which `helm template` leaves out, from a copy of the chart."""
    copied = shutil.copytree(chart, folder / chart.name)
    (copied / "templates" / "notes.yaml").write_text(NOTES)
    text: str = only(helm.template(copied, *values), "ConfigMap", "notes")["data"]["text"]
    return text


def read(spec: Any) -> Iterator[str]:
    """Yield the names of the Secrets that a resource says its pods and its operator read."""
    for key, value in spec.items() if isinstance(spec, dict) else ():
        if key.lower().endswith("secretref") and key != "tlsSecretRef":
            yield value["name"]
        yield from read(value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_people_make_exactly_the_secrets_that_the_chart_does_not(
    helm4: Helm, environment: str
) -> None:
    """Helm refuses to install over a Secret that it did not create."""
    manifests = helm4.template(ENVIRONMENT, *values_of(environment))
    by_chart = {
        manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Secret"
    }
    by_hand = set(instructions.secrets(environment))
    assert by_hand & by_chart == set()
    by_chart.discard("orders-support")  # for people
    assert by_hand | by_chart == set(read(only(manifests, "OrderService")["spec"]))


def test_the_store_fills_what_people_would_make_by_hand(helm4: Helm) -> None:
    options = (*values_of("prod"), "--set=externalSecrets.enabled=true")
    manifests = helm4.template(ENVIRONMENT, *options)
    filled = {
        manifest["metadata"]["name"]: {entry["secretKey"] for entry in manifest["spec"]["data"]}
        for manifest in manifests
        if manifest["kind"] == "ExternalSecret"
    }
    assert filled == instructions.secrets("prod")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_notes_name_the_secrets_that_come_from_elsewhere(
    helm4: Helm, tmp_path: Path, environment: str
) -> None:
    notes = notes_of(helm4, ENVIRONMENT, tmp_path, *values_of(environment))
    _, _, names = notes.partition("pods wait for each of them: ")
    named = names.split(".")[0].split(", ") if names else []
    assert sorted(named) == sorted(instructions.secrets(environment))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_proxies_are_trusted_where_an_ingress_is_in_front_and_only_there(environment: str) -> None:
    values = yaml.safe_load((ENVIRONMENT / f"values-{environment}.yaml").read_text())
    api = values["spec"].get("api", {})
    assert bool(api.get("trustedProxies")) == bool(api.get("ingress"))


def test_the_values_of_staging_name_them_too() -> None:
    comment = (ENVIRONMENT / "values-staging.yaml").read_text().partition("nameOverride")[0]
    named = comment.partition("kubernetes.md): ")[2].partition(".")[0].split(", ")
    assert sorted(named) == sorted(instructions.secrets("staging"))


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ("serviceMonitor.enabled=true", True),
        ("serviceMonitor.enabled=true,networkPolicy.enabled=false", False),
        ("serviceMonitor.enabled=true,networkPolicy.metricsFrom[0].namespaceSelector.x=y", False),
        ("serviceMonitor.enabled=false", False),
    ],
)
def test_the_notes_warn_of_a_prometheus_that_is_kept_out(
    helm4: Helm, tmp_path: Path, options: str, *, warned: bool
) -> None:
    notes = notes_of(helm4, OPERATOR, tmp_path, f"--set={options}")
    assert ("networkPolicy.metricsFrom is empty" in notes) == warned
