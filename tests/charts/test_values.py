"""Values that the schemas admit render to valid objects, or an error explains the refusal."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from charts.helm import ENVIRONMENT, OPERATOR, VERSION, Failed, Helm, only, values_of
from charts.policies import pod_spec

# YAML reads both as numbers where they are not quoted.
DIGITS: Final = "20261123"
IMAGE: Final = f"{DIGITS}:1"
FOREIGN: Final = {"OrderService", "ServiceMonitor", "PrometheusRule", "ExternalSecret"}
# Of names; that of a StatefulSet gets a dash and a hash of 10 characters in a label of its pods.
LONGEST: Final = {"Service": 63, "Job": 63, "StatefulSet": 52}
LONGEST_LABEL: Final = 63
LONGEST_WITH_REPLICA: Final = 33


def in_digits(schema: dict[str, Any]) -> Any:
    """Return digits for every free text that a schema knows; None if it admits none."""
    if "properties" in schema:
        values = {name: in_digits(member) for name, member in schema["properties"].items()}
        return {name: value for name, value in values.items() if value is not None}
    if "items" in schema:
        element = in_digits(schema["items"])
        return None if element is None else [element]
    if isinstance(schema.get("additionalProperties"), dict):
        names = schema.get("propertyNames", {}).get("pattern", "")
        value = in_digits(schema["additionalProperties"])
        # `N` is a boolean to YAML.
        return None if value is None else {DIGITS if re.search(names, DIGITS) else "N": value}
    if "string" not in schema.get("type", ()):
        return None
    samples = (text for text in (DIGITS, IMAGE) if re.search(schema.get("pattern", ""), text))
    return next(samples, None)


def digits_for(chart: Path, folder: Path, **fields: Any) -> str:
    """Write values in digits for a chart, but for `spec`, which is handed on as it is."""
    schema = json.loads((chart / "values.schema.json").read_text())
    schema["properties"].pop("spec", None)
    values = in_digits(schema)
    for name, value in fields.items():
        values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
    file = folder / "values.yaml"
    file.write_text(json.dumps(values))
    return f"--values={file}"


def leaves(tree: Any) -> Iterator[Any]:
    """Yield every value, and every key."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def check(manifests: list[dict[str, Any]]) -> None:
    numbers = [leaf for leaf in leaves(manifests) if not isinstance(leaf, str)]
    assert int(DIGITS) not in numbers
    assert str(manifests).count(DIGITS) > len(manifests)
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_the_operators_values_may_be_digits(helm4: Helm, tmp_path: Path) -> None:
    on = {"enabled": True}
    options = digits_for(
        OPERATOR, tmp_path, serviceMonitor=on, prometheusRule=on, dashboards=on,
        resources={"requests": {"cpu": 1}}, watchNamespaces=[],
    )  # fmt: skip
    manifests = helm4.template(OPERATOR, options, "--namespace", DIGITS, release="null")
    check(manifests)
    env = pod_spec(only(manifests, "Deployment"))["containers"][0]["env"]
    assert {"name": "N", "value": DIGITS} in env


def test_an_environments_values_may_be_digits(helm4: Helm, tmp_path: Path) -> None:
    on = {"enabled": True}
    options = digits_for(
        ENVIRONMENT, tmp_path, postgresql=on, rabbitmq=on, valkey=on, simulators=on, loadTest=on,
        externalSecrets=on, nameOverride="true",
        spec={"podTemplate": {"imagePullSecrets": [{"name": DIGITS}]}},
    )  # fmt: skip
    check(helm4.template(ENVIRONMENT, options, "--namespace", DIGITS))


def test_every_pod_of_an_environment_is_pulled_with_the_secrets_of_the_pod_template(
    helm4: Helm,
) -> None:
    options = (
        "--set=spec.podTemplate.imagePullSecrets[0].name=registry",
        "--set=loadTest.enabled=true",
    )
    manifests = helm4.template(ENVIRONMENT, *values_of("dev"), *options)
    kinds = ("Deployment", "StatefulSet", "Job", "Pod")
    pods = [pod_spec(manifest) for manifest in manifests if manifest["kind"] in kinds]
    assert len(pods) > 8
    assert {str(pod["imagePullSecrets"]) for pod in pods} == {"[{'name': 'registry'}]"}


def test_dashboards_may_have_no_label(helm4: Helm) -> None:
    options = "--set=dashboards.enabled=true,dashboards.labels.grafana_dashboard=null"
    maps = [
        manifest
        for manifest in helm4.template(OPERATOR, options)
        if manifest["kind"] == "ConfigMap"
    ]
    assert maps
    assert all("grafana_dashboard" not in config_map["metadata"]["labels"] for config_map in maps)


def templates(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {"Deployment", "StatefulSet"}
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]
        for manifest in manifests
        if manifest["kind"] in kinds
    }


def replaced(
    manifests_before: list[dict[str, Any]], manifests_after: list[dict[str, Any]]
) -> set[str]:
    """Name the workloads that are in both and whose pods are replaced."""
    old, new = templates(manifests_before), templates(manifests_after)
    return {name for name in old.keys() & new.keys() if new[name] != old[name]}


def test_who_has_the_password_is_replaced_when_it_changes(helm4: Helm) -> None:
    having = ("postgresql", "postgresql-replica", "rabbitmq", "valkey", "webhooks")
    manifests_before = helm4.template(ENVIRONMENT, *values_of("dev"))
    manifests_after = helm4.template(
        ENVIRONMENT, *values_of("dev"), "--set=developmentPassword=another"
    )
    assert replaced(manifests_before, manifests_after) == {f"orders-{name}" for name in having}


def test_postgresql_stays_when_its_replica_goes(helm4: Helm) -> None:
    manifests_before = helm4.template(ENVIRONMENT, *values_of("dev"))
    options = "--set=postgresql.replica.enabled=false"
    manifests_after = helm4.template(ENVIRONMENT, *values_of("dev"), options)
    assert replaced(manifests_before, manifests_after) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "names"),
    [
        ("rabbitmq.yaml", "log.file = false", "log.file = true", {"orders-rabbitmq"}),
        ("secrets.yaml", "maxmemory 64mb", "maxmemory 32mb", {"orders-valkey"}),
        ("postgresql.yaml", "ALTER ROLE migrator SET", "ALTER ROLE reader SET", set()),
        ("../Chart.yaml", "\nappVersion: ", "-next\nappVersion: ", set()),
    ],
)
def test_a_server_is_replaced_when_its_configuration_changes_and_only_then(
    helm4: Helm, tmp_path: Path, file: str, old: str, new: str, names: set[str]
) -> None:
    chart = shutil.copytree(ENVIRONMENT, tmp_path / "chart")
    changed = chart / "templates" / file
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    manifests_before, manifests_after = (
        helm4.template(source, *values_of("dev")) for source in (ENVIRONMENT, chart)
    )
    assert replaced(manifests_before, manifests_after) == names


def job_of_roles(manifests: list[dict[str, Any]]) -> str:
    """Return the name of the Job that makes the roles in PostgreSQL."""
    jobs = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Job"]
    [name] = [job for job in jobs if job.startswith("orders-roles-")]
    return str(name)


def test_another_job_makes_the_roles_when_something_in_it_changes(helm4: Helm) -> None:
    options = (
        "image.tag=another",
        "developmentPassword=another",
        "postgresql.image=localhost/another:1",
        "tls.secretName=servers",
    )
    first, pinned, *others = (
        job_of_roles(helm4.template(ENVIRONMENT, *values_of("dev"), *fields))
        for fields in ((), *((f"--set={option}",) for option in options))
    )
    assert pinned == first
    assert len({first, *others}) == len(options)


def test_the_prefix_of_the_roles_stays_beside_variables_of_the_migrations_own(helm4: Helm) -> None:
    first = "spec.migrations.podTemplate.env[0]"
    own = f"--set={first}.name=LANG,{first}.value=C"
    spec = only(helm4.template(ENVIRONMENT, *values_of("dev"), own), "OrderService")["spec"]
    variables = {each["name"]: each["value"] for each in spec["migrations"]["podTemplate"]["env"]}
    assert variables == {"LANG": "C", "ORDERS_DATABASE_ROLE_PREFIX": "orders_"}


def names_too_long(manifests: list[dict[str, Any]]) -> list[str]:
    """Return the names and labels that are longer than Kubernetes takes."""
    named = [
        (manifest["metadata"]["name"], LONGEST.get(manifest["kind"], 253)) for manifest in manifests
    ]
    values = chain(*(manifest["metadata"].get("labels", {}).values() for manifest in manifests))
    labels = [(value, LONGEST_LABEL) for value in values]
    return [name for name, maximum in (*named, *labels) if len(name) > maximum]


@pytest.mark.parametrize("length", [46, 47, 50, 53])
def test_the_longest_name_of_an_operators_release_is_taken(helm4: Helm, length: int) -> None:
    manifests = helm4.template(OPERATOR, release="o" * length)
    assert names_too_long(manifests) == []


@pytest.mark.parametrize(
    ("environment", "length"), [("dev", LONGEST_WITH_REPLICA), ("staging", 40), ("prod", 40)]
)
def test_the_longest_names_of_an_environment_are_taken(
    helm4: Helm, environment: str, length: int
) -> None:
    schema = json.loads((ENVIRONMENT / "values.schema.json").read_text())["properties"]
    assert schema["nameOverride"]["maxLength"] == 40
    run = "r" * schema["loadTest"]["properties"]["run"]["maxLength"]
    options = f"--set=loadTest.enabled=true,nameOverride={'o' * length},loadTest.run={run}"
    manifests = helm4.template(ENVIRONMENT, *values_of(environment), options)
    assert names_too_long(manifests) == []


def test_a_name_that_is_too_long_for_the_replica_is_refused(helm4: Helm) -> None:
    name = "o" * (LONGEST_WITH_REPLICA + 1)
    with pytest.raises(Failed, match="longer than 52 characters"):
        helm4.template(ENVIRONMENT, *values_of("dev"), f"--set=nameOverride={name}")


@pytest.mark.parametrize("name", ["1a", "a.b", "A", "a-"])
def test_a_name_that_no_service_could_have_is_refused(helm: Helm, name: str) -> None:
    with pytest.raises(Failed, match="nameOverride"):
        helm.template(ENVIRONMENT, f"--set-string=nameOverride={name}")


@pytest.mark.parametrize("release", ["1a", "a.b"])
@pytest.mark.parametrize("chart", [OPERATOR, ENVIRONMENT])
def test_a_release_that_no_service_could_be_named_after_is_refused(
    helm: Helm, chart: Path, release: str
) -> None:
    with pytest.raises(Failed, match=f'the name "{release}" has to begin with a letter'):
        helm.template(chart, release=release)


def test_operators_of_one_release_name_share_nothing_of_the_cluster(helm4: Helm) -> None:
    def of_the_cluster(namespace: str) -> set[tuple[str, str, str]]:
        options = (f"--set=watchNamespace={namespace},crds.install=false", "--namespace", namespace)
        manifests = helm4.template(OPERATOR, *options)
        named = {
            (
                manifest["kind"],
                manifest["metadata"].get("namespace", ""),
                manifest["metadata"]["name"],
            )
            for manifest in manifests
        }
        return {identity for identity in named if identity[1] != namespace}

    assert of_the_cluster("one")
    assert of_the_cluster("one") & of_the_cluster("two") == set()


@pytest.mark.parametrize(("extra", "expected"), [("9999", [9999, 8093]), ("8093", [8093])])
def test_further_ports_do_not_cut_off_the_receiver_of_webhooks(
    helm4: Helm, extra: str, expected: list[int]
) -> None:
    options = f"--set=spec.networkPolicy.extraEgressPorts={{{extra}}}"
    spec = only(helm4.template(ENVIRONMENT, *values_of("dev"), options), "OrderService")["spec"]
    assert spec["networkPolicy"]["extraEgressPorts"] == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPERATOR_LEASE", "the release"),
        ("OPERATOR_ACCOUNT", "serviceAccount.name"),
        ("OPERATOR_LOG_LEVEL", "logLevel"),
        ("OPERATOR_NAMESPACE", "watchNamespace"),
        ("OPERATOR_SECRETS_WATCH", "watchSecrets"),
        ("OPERATOR_EXTERNAL_METRICS_SERVICE", "externalMetrics"),
        ("OPERATOR_EXTERNAL_METRICS_PORT", "externalMetrics"),
    ],
)
def test_a_variable_that_the_chart_sets_is_refused(helm: Helm, variable: str, value: str) -> None:
    with pytest.raises(Failed, match=f"env.{variable} is set by {value}"):
        helm.template(OPERATOR, f"--set-string=env.{variable}=x")


@pytest.mark.parametrize("option", ["", "--set=watchNamespace=shop,watchSecrets=true"])
def test_the_chart_sets_no_other_variable(helm4: Helm, option: str) -> None:
    manifests = helm4.template(OPERATOR, *option.split())
    for variable in pod_spec(only(manifests, "Deployment"))["containers"][0]["env"]:
        with pytest.raises(Failed, match="is set by"):
            helm4.template(OPERATOR, f"--set-string=env.{variable['name']}=x")


def paths(values: Any, depth: int = 3) -> Iterator[str]:
    """Yield the path of every key, as `--set` takes it."""
    for key, value in values.items():
        name = key.replace(".", "\\.")
        yield name
        if isinstance(value, dict) and depth > 1:
            yield from (f"{name}.{path}" for path in paths(value, depth - 1))


@pytest.mark.parametrize(
    ("chart", "options"), [(OPERATOR, ()), (ENVIRONMENT, values_of("dev"))], ids=lambda _: ""
)
def test_null_takes_a_value_away_at_every_level(
    helm4: Helm, chart: Path, options: tuple[str, ...]
) -> None:
    values = yaml.safe_load((chart / "values.yaml").read_text())
    refusals = {}
    for path in paths(values):
        try:
            helm4.template(chart, *options, f"--set={path}=null")
        except Failed as failure:
            refusals[path] = str(failure)
    # What cannot be left out is asked for by its name.
    required_values = {"image": "image.repository", "image.repository": "image.repository"}
    if chart == ENVIRONMENT:
        required_values["developmentPassword"] = "developmentPassword"
    assert set(refusals) == set(required_values), refusals
    assert all(f"{value} is needed" in refusals[path] for path, value in required_values.items())


def test_null_in_spec_takes_away_what_the_chart_would_set(helm: Helm) -> None:
    option = "--set=spec.cache=null,spec.upstreams.payment=null,spec.worker.autoscaling=null"
    (resource,) = (
        manifest
        for manifest in helm.template(ENVIRONMENT, *values_of("dev"), option)
        if manifest["kind"] == "OrderService"
    )
    assert "cache" not in resource["spec"]
    assert set(resource["spec"]["upstreams"]) == {"inventory"}
    assert None not in resource["spec"].values()


def test_the_condition_of_an_umbrella_chart_is_admitted(helm: Helm, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    for chart in (OPERATOR, ENVIRONMENT):
        shutil.copytree(chart, tmp_path / "charts" / chart.name)
    dependencies = [
        {"name": chart.name, "version": VERSION, "condition": f"{chart.name}.enabled"}
        for chart in (OPERATOR, ENVIRONMENT)
    ]
    umbrella = {"apiVersion": "v2", "name": "umbrella", "version": "1.0.0"}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(umbrella | {"dependencies": dependencies}))
    options = (
        "--set=orderservice-operator.enabled=true",
        "--set=orderservice-environment.enabled=",
    )
    kinds = {
        manifest["kind"] for manifest in helm.template(tmp_path, options[0], f"{options[1]}false")
    }
    assert "Deployment" in kinds
    assert "OrderService" not in kinds


@pytest.mark.parametrize("chart", [OPERATOR, ENVIRONMENT], ids=lambda chart: chart.name)
def test_common_labels_and_annotations_are_on_every_object(helm4: Helm, chart: Path) -> None:
    on = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true"
    every = ("--set", on) if chart == OPERATOR else values_of("dev")
    options = ("--set=commonLabels.team=shop", "--set-string=commonAnnotations.cost/center=12")
    manifests = [
        manifest
        for manifest in helm4.template(chart, *every, *options)
        if "helm.sh/hook" not in manifest["metadata"].get("annotations", {})
    ]
    for manifest in manifests:
        name = (manifest["kind"], manifest["metadata"]["name"])
        assert manifest["metadata"]["labels"]["team"] == "shop", name
        assert manifest["metadata"]["annotations"]["cost/center"] == "12", name
        assert "team" not in str(manifest.get("spec", {}).get("selector", {})), name


def test_fullname_override_names_everything(helm4: Helm) -> None:
    for chart, options in ((OPERATOR, ()), (ENVIRONMENT, values_of("dev"))):
        manifests = helm4.template(chart, *options, "--set=fullnameOverride=another")
        names = {
            manifest["metadata"]["name"]
            for manifest in manifests
            if manifest["kind"] != "CustomResourceDefinition"
        }
        assert [name for name in names if "another" not in name] == []


def test_volumes_are_of_the_storage_class_that_is_asked_for(helm4: Helm) -> None:
    options = "--set=storageClass=fast,postgresql.storage=1Gi,rabbitmq.storage=1Gi"
    load = "--set=loadTest.enabled=true,loadTest.storage=1Gi"
    manifests = helm4.template(ENVIRONMENT, *values_of("dev"), options, load)
    claims = [
        manifest["spec"] for manifest in manifests if manifest["kind"] == "PersistentVolumeClaim"
    ]
    sets = [manifest["spec"] for manifest in manifests if manifest["kind"] == "StatefulSet"]
    claims += [claim["spec"] for spec in sets for claim in spec.get("volumeClaimTemplates", [])]
    assert len(claims) == 4
    assert {claim["storageClassName"] for claim in claims} == {"fast"}


@pytest.mark.parametrize(
    "file",
    ["orderservices.yaml", "role.yaml", "external_metrics_role.yaml", "platform.rules.yaml"],
)
def test_a_chart_that_lost_a_file_on_its_way_is_refused(
    helm: Helm, tmp_path: Path, file: str
) -> None:
    chart = shutil.copytree(OPERATOR, tmp_path / OPERATOR.name)
    (chart / "files" / file).write_text("")
    with pytest.raises(Failed, match=f"files/{re.escape(file)} is missing or empty"):
        helm.template(chart, "--set=prometheusRule.enabled=true")


def test_a_chart_without_its_dashboards_is_refused(helm4: Helm, tmp_path: Path) -> None:
    chart = shutil.copytree(OPERATOR, tmp_path / OPERATOR.name)
    shutil.rmtree(chart / "files" / "dashboards")
    with pytest.raises(Failed, match="files/dashboards is missing or empty"):
        helm4.template(chart, "--set=dashboards.enabled=true")


def test_no_file_of_a_chart_is_a_link() -> None:
    links = [
        path for chart in (OPERATOR, ENVIRONMENT) for path in chart.rglob("*") if path.is_symlink()
    ]
    assert links == [], "Flux drops symbolic links"
