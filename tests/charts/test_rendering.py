"""The manifests that the charts render, without a cluster."""

import shutil
from itertools import chain, product
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from charts.helm import (
    CHARTS,
    ENVIRONMENT,
    ENVIRONMENTS,
    OPERATOR,
    Failed,
    Helm,
    only,
    released,
    values_of,
)
from charts.policies import pod_spec, violations
from loadtest import cli
from orderservice_operator.children import processes
from orderservice_operator.resource.spec import OrderService
from upkeep import written

OBSERVABILITY = CHARTS.parent / "observability"
MINORS = ("1.35", "1.36", "1.37")
# Kinds whose schema is not Kubernetes' own.
FOREIGN = {"OrderService", "ServiceMonitor", "PrometheusRule", "ExternalSecret"}
EVERYTHING = (
    "--set=serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true",
    "--set=imagePullSecrets[0]=registry,priorityClassName=high",
)
LOAD = (
    "--set=loadTest.enabled=true,loadTest.storage=1Gi,externalSecrets.enabled=true,externalSecrets.storeName=vault",
)
CASES: dict[str, tuple[Path, tuple[str, ...]]] = {
    "operator": (OPERATOR, ()),
    "operator, everything": (OPERATOR, EVERYTHING),
    "operator, one namespace": (OPERATOR, ("--set=watchNamespace=shop,replicas=1",)),
    **{name: (ENVIRONMENT, values_of(name)) for name in ENVIRONMENTS},
    **{f"{name}, load": (ENVIRONMENT, (*values_of(name), *LOAD)) for name in ENVIRONMENTS},
    "dev, kept": (
        ENVIRONMENT,
        (*values_of("dev"), "--set=postgresql.storage=1Gi,rabbitmq.storage=1Gi"),
    ),
    "dev, TLS": (ENVIRONMENT, (*values_of("dev"), *LOAD, "--set=tls.secretName=orders-servers")),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Path, tuple[str, ...]]:
    return CASES[request.param]


@pytest.fixture(scope="module")
def rendered(helm4: Helm, case: tuple[Path, tuple[str, ...]]) -> list[dict[str, Any]]:
    return helm4.template(case[0], *case[1])


def test_helm_3_renders_the_same(
    helm3: Helm, case: tuple[Path, tuple[str, ...]], rendered: list[dict[str, Any]]
) -> None:
    def name(manifest: dict[str, Any]) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    assert sorted(helm3.template(case[0], *case[1]), key=name) == sorted(rendered, key=name)


@pytest.mark.parametrize(
    ("chart", "values"),
    [(OPERATOR, ()), *((ENVIRONMENT, values_of(name)) for name in ENVIRONMENTS)],
)
def test_it_lints_strictly(helm: Helm, chart: Path, values: tuple[str, ...]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart), *values)


def test_every_manifest_is_valid_in_the_last_three_minors(rendered: list[dict[str, Any]]) -> None:
    manifests = [manifest for manifest in rendered if manifest["kind"] not in FOREIGN]
    for manifest, minor in product(manifests, MINORS):
        kubernetes_validate.validate(manifest, minor, strict=True)


def test_no_workload_breaks_a_policy(rendered: list[dict[str, Any]]) -> None:
    assert violations(rendered) == []


def test_no_two_manifests_have_one_name(rendered: list[dict[str, Any]]) -> None:
    names = [
        (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        for manifest in rendered
    ]
    assert len(names) == len(set(names))


def test_what_is_written_from_other_files_is_up_to_date() -> None:
    stale = [str(path) for path, text in written.files().items() if path.read_text() != text]
    assert stale == [], "run `make charts`"


def test_the_definition_is_the_operators_own(helm4: Helm) -> None:
    definition = only(helm4.template(OPERATOR), "CustomResourceDefinition")
    source = CHARTS.parent / "operator/orderservice_operator/crd/orderservices.yaml"
    assert definition["spec"] == yaml.safe_load(source.read_text())["spec"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_alerts_are_the_generated_ones_for_the_release_that_runs(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, "--set=prometheusRule.enabled=true", release="other")
    written_rules = (OBSERVABILITY / "prometheus/platform.rules.yaml").read_text()
    expected = yaml.safe_load(written_rules.replace('job="orderservice-operator"', 'job="other"'))
    assert only(manifests, "PrometheusRule")["spec"] == expected


def test_the_alerts_link_to_where_runbook_and_dashboards_are(helm4: Helm) -> None:
    hosts = "runbookBaseUrl=https://docs.example/orders/,dashboardBaseUrl=https://grafana.example"
    options = "--set=prometheusRule.enabled=true,prometheusRule." + hosts.replace(
        ",", ",prometheusRule."
    )
    groups = only(helm4.template(OPERATOR, options), "PrometheusRule")["spec"]["groups"]
    links = [
        (rule["annotations"]["runbook_url"], rule["annotations"]["dashboard"])
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert links
    for runbook, dashboard in links:
        assert runbook.startswith("https://docs.example/orders/runbook.md#")
        assert dashboard.startswith("https://grafana.example/d/")


def test_the_dashboards_are_the_written_ones(helm: Helm) -> None:
    manifests = helm.template(OPERATOR, "--set=dashboards.enabled=true", release="o")
    maps = [manifest for manifest in manifests if manifest["kind"] == "ConfigMap"]
    assert all(config_map["metadata"]["labels"]["grafana_dashboard"] == "1" for config_map in maps)
    dashboards = {name: text for config_map in maps for name, text in config_map["data"].items()}
    folder = OBSERVABILITY / "orderservice_observability/dashboards"
    assert dashboards == {f"orders-{file.name}": file.read_text() for file in folder.glob("*.json")}


def rules_of(manifests: list[dict[str, Any]], *parts: str) -> list[str]:
    """Return the rules of the roles whose names end so, as text."""
    roles = [manifest for manifest in manifests if manifest["kind"] in {"Role", "ClusterRole"}]
    named = [role["rules"] for role in roles if role["metadata"]["name"].endswith(parts)]
    return sorted(_in_words(rule) for rule in chain(*named))


def rules_in(name: str) -> list[str]:
    """Give the rules of one of the operator's own files."""
    source = CHARTS.parent / "operator/orderservice_operator/rbac" / name
    return sorted(map(_in_words, yaml.safe_load(source.read_text())["rules"]))


def _in_words(rule: dict[str, Any]) -> str:
    itself = {"resourceNames": ["itself"]} if rule["resources"] == ["clusterroles"] else {}
    return yaml.safe_dump(rule | itself)


def test_the_operator_may_look_at_the_role_it_is_told_to_go_with(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, release="one")
    (role,) = (manifest for manifest in manifests if "clusterroles" in str(manifest.get("rules")))
    (rule,) = (entry for entry in role["rules"] if entry["resources"] == ["clusterroles"])
    assert rule["resourceNames"] == [role["metadata"]["name"]]
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environ["OPERATOR_OWNER"] == role["metadata"]["name"]


def test_the_operator_knows_the_account_that_it_runs_as(helm4: Helm) -> None:
    pod = only(helm4.template(OPERATOR, "--set=serviceAccount.name=ours"), "Deployment")
    template = pod["spec"]["template"]["spec"]
    (container,) = template["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    account = f"{pod['metadata']['namespace']}/{template['serviceAccountName']}"
    assert environ["OPERATOR_ACCOUNT"] == account


def test_the_rights_are_the_operators_own(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, release="orderservice-operator")
    parts = ("framework", "application", "leadership", "registration")
    assert rules_of(manifests, *parts) == rules_in("role.yaml")
    assert rules_of(manifests, "external-metrics") == rules_in("external_metrics_role.yaml")
    assert "*" not in str(rules_of(manifests, ""))


def test_secrets_are_watched_where_that_is_asked_for_and_in_no_other_namespace(helm4: Helm) -> None:
    def watched(*options: str) -> tuple[list[str], bool]:
        manifests = helm4.template(OPERATOR, *options)
        roles = [
            manifest["metadata"].get("namespace", "every")
            for manifest in manifests
            if any(rule["resources"] == ["secrets"] and "watch" in rule["verbs"]
                   for rule in manifest.get("rules", []))
        ]  # fmt: skip
        (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        return roles, "OPERATOR_SECRETS_WATCH" in {
            variable["name"] for variable in container["env"]
        }

    assert watched() == ([], False)
    assert watched("--set=watchSecrets=true") == (["every"], True)
    both = "--set=watchSecrets=true,watchNamespaces={a,b}"
    assert watched(both) == (["a", "b"], True)


def test_in_one_namespace_they_are_the_same_but_for_what_a_cluster_has_one_of(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, "--set=watchNamespace=shop")
    rules = rules_of(manifests, "framework", "application", "leadership")
    kinds = ("apiservices", "clusterroles", "leases")
    of_a_cluster = {rule for rule in rules_in("role.yaml") if any(kind in rule for kind in kinds)}
    own_lease = {rule for rule in of_a_cluster if "leases" in rule and "update" in rule}
    assert set(rules_in("role.yaml")) - set(rules) == of_a_cluster - own_lease


def test_in_one_namespace_it_may_elsewhere_only_read_who_serves_metrics_and_who_else_works(
    helm4: Helm,
) -> None:
    manifests = helm4.template(OPERATOR, "--set=watchNamespace=shop,rbac.aggregate=false")
    role = only(manifests, "ClusterRole")
    named = {"v1beta1.external.metrics.k8s.io", role["metadata"]["name"]}
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", [])} == named
    anywhere = [rule["resources"] for rule in role["rules"] if "resourceNames" not in rule]
    assert anywhere == [["leases"]]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get"}
    roles = [manifest["metadata"] for manifest in manifests if manifest["kind"] == "Role"]
    assert {metadata["namespace"] for metadata in roles} == {"shop"}


@pytest.mark.parametrize("chart", [OPERATOR, ENVIRONMENT])
def test_a_digest_wins_over_a_tag(helm4: Helm, chart: Path) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    options = [f"--set=image.repository=r.example/x,image.tag=v9,image.digest={digest}"]
    manifests = helm4.template(chart, *values_of("dev") * (chart is ENVIRONMENT), *options)
    if chart is ENVIRONMENT:
        images = {only(manifests, "OrderService")["spec"]["image"]}
    else:
        spec = pod_spec(only(manifests, "Deployment"))
        images = {container["image"] for container in spec["containers"]}
    assert images == {f"r.example/x@{digest}"}


@pytest.mark.parametrize(
    ("chart", "value", "named"),
    [
        (OPERATOR, "replicaCount=2", "replicaCount"),
        (OPERATOR, "image.tagg=1", "tagg"),
        (OPERATOR, "image.tag=latest", "tag"),
        (OPERATOR, "image.digest=sha256:12", "digest"),
        (OPERATOR, "replicas=two", "replicas"),
        (OPERATOR, "env.resync=1", "resync"),
        (ENVIRONMENT, "spec.worker.prefetchh=1", "prefetchh"),
        (ENVIRONMENT, "spec.api.autoscaling.maxReplicas=many", "maxReplicas"),
        (ENVIRONMENT, "spec.api.workerClass=gevent", "workerClass"),
        (ENVIRONMENT, "postgres.enabled=true", "postgres"),
        (ENVIRONMENT, "spec.podTemplate.env[0].name=lower", "name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(
    helm: Helm, chart: Path, value: str, named: str
) -> None:
    with pytest.raises(Failed, match=named):
        helm.template(chart, f"--set={value}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set=rabbitmq.enabled=true",), "developmentPassword is needed"),
        (("--set=externalSecrets.enabled=true",), "externalSecrets.storeName is needed"),
        (("--set=test.placeOrder=true,spec.auth.mode=jwt",), "no token to place an order with"),
    ],
)
def test_what_is_missing_is_said(helm4: Helm, options: tuple[str, ...], message: str) -> None:
    with pytest.raises(Failed, match=message):
        helm4.template(ENVIRONMENT, *options)


def test_a_release_name_that_is_too_long_is_refused(helm4: Helm) -> None:
    with pytest.raises(Failed, match="longer than 40 characters"):
        helm4.template(ENVIRONMENT, release="o" * 41)


def test_without_the_resource_it_says_what_to_install_first(helm: Helm) -> None:
    with pytest.raises(Failed, match="install the chart orderservice-operator first"):
        helm("template", "orders", str(ENVIRONMENT))


def commands_of(manifests: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Give the command of every Job."""
    jobs = [manifest for manifest in manifests if manifest["kind"] == "Job"]
    return {job["metadata"]["name"]: pod_spec(job)["containers"][0]["command"] for job in jobs}


def test_a_load_test_is_a_master_and_workers_that_the_load_tests_understand(helm4: Helm) -> None:
    options = ("--set=loadTest.enabled=true,loadTest.scenario=spike,loadTest.workers=3",)
    commands = commands_of(helm4.template(ENVIRONMENT, *values_of("staging"), *options))
    understood = {name: cli.parser().parse_args(command[3:]) for name, command in commands.items()}
    master, worker = (
        understood[f"orders-load-{component}-first"] for component in ("master", "worker")
    )
    assert (master.scenario, master.host, master.workers) == (["spike"], "http://orders-api", 3)
    assert (worker.scenario, worker.worker_of) == (["spike"], "orders-load")


def test_a_load_test_is_told_where_grafana_is_and_keeps_its_results(helm4: Helm) -> None:
    grafana = "http://grafana.monitoring"
    options = f"--set=loadTest.enabled=true,loadTest.grafanaUrl={grafana},loadTest.storage=1Gi"
    manifests = helm4.template(ENVIRONMENT, *values_of("staging"), options)
    settings = only(manifests, "ConfigMap", "orders-load")["data"]
    assert settings["LOADTEST_GRAFANA_URL"] == grafana
    volume = only(manifests, "PersistentVolumeClaim")["metadata"]
    assert volume["annotations"] == {"helm.sh/resource-policy": "keep"}
    master = pod_spec(only(manifests, "Job", "orders-load-master-first"))
    (results,) = [candidate for candidate in master["volumes"] if candidate["name"] == "results"]
    assert results["persistentVolumeClaim"] == {"claimName": volume["name"]}
    assert settings["LOADTEST_FOLDER"] == "/results"


def test_helm_test_asks_the_operator_through_its_service(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, release="o")
    pod = only(manifests, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    script = pod["spec"]["containers"][0]["command"][-1]
    service = only(manifests, "Service", "o")
    (port,) = [entry["port"] for entry in service["spec"]["ports"] if entry["name"] == "admin"]
    assert f'"http://o.{service["metadata"]["namespace"]}:{port}/readyz"' in script


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_helm_test_places_an_order_only_where_it_is_switched_on(
    helm4: Helm, environment: str
) -> None:
    pod = only(helm4.template(ENVIRONMENT, *values_of(environment)), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    script = container["command"][-1]
    compile(script, "test", "exec")
    assert "/health" in script
    assert ("paymentMethod" in script) == (environment == "dev")


def test_large_numbers_stay_whole(helm: Helm) -> None:
    option = "--set=spec.messaging.maxLength=100000000"
    spec = only(helm.template(ENVIRONMENT, option), "OrderService")["spec"]
    assert spec["messaging"]["maxLength"] == 100_000_000
    assert isinstance(spec["messaging"]["maxLength"], int)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_lets_nobody_in_without_tokens(helm4: Helm, name: str) -> None:
    spec = only(helm4.template(ENVIRONMENT, *values_of(name)), "OrderService")["spec"]
    if "ingress" in spec["api"] or "httpRoute" in spec["api"]:
        assert spec["auth"]["mode"] == "jwt"
        assert spec["api"]["trustedProxies"], "else every client has the controller's address"


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_every_process_of_a_lasting_environment_has_two_pods_at_least(
    helm4: Helm, name: str
) -> None:
    resource = only(helm4.template(ENVIRONMENT, *values_of(name)), "OrderService")
    service = msgspec.convert(resource, OrderService)
    fewest = {
        process.name: processes.fewest_replicas(service, process) for process in processes.ALL
    }
    assert len(fewest) == 4
    assert min(fewest.values()) >= 2, fewest


def test_what_others_select_by_can_be_set(helm4: Helm) -> None:
    on = "serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true"
    labels = "serviceMonitor.labels.release=stack,prometheusRule.labels.release=stack"
    folder = "dashboards.labels.team=shop,dashboards.annotations.grafana_folder=Orders"
    manifests = helm4.template(OPERATOR, f"--set={on},{labels},{folder}")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert only(manifests, kind)["metadata"]["labels"]["release"] == "stack"
    boards = [manifest["metadata"] for manifest in manifests if manifest["kind"] == "ConfigMap"]
    assert boards
    for board in boards:
        assert board["labels"]["team"] == "shop"
        assert board["annotations"]["grafana_folder"] == "Orders"


@pytest.mark.parametrize("chart", [OPERATOR, ENVIRONMENT], ids=lambda chart: chart.name)
def test_a_chart_says_who_keeps_it_and_where_it_is_from(chart: Path) -> None:
    read = yaml.safe_load((chart / "Chart.yaml").read_text())
    assert {"home", "icon", "maintainers", "sources"} <= read.keys()


def test_the_example_in_the_operators_chart_is_a_valid_resource(helm4: Helm) -> None:
    annotations = yaml.safe_load((OPERATOR / "Chart.yaml").read_text())["annotations"]
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    definition = only(helm4.template(OPERATOR), "CustomResourceDefinition")
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    jsonschema.Draft4Validator(schema).validate(example["spec"])
    assert example["kind"] == definition["spec"]["names"]["kind"]


def test_who_may_edit_may_scale_and_who_may_view_may_see_it(helm4: Helm) -> None:
    roles = {
        manifest["metadata"]["labels"].get("rbac.authorization.k8s.io/aggregate-to-edit", ""): (
            manifest["rules"]
        )
        for manifest in helm4.template(OPERATOR)
        if manifest["kind"] == "ClusterRole" and "orderservices-" in manifest["metadata"]["name"]
    }
    scale = {
        edit: rule["verbs"]
        for edit, rules in roles.items()
        for rule in rules
        if rule["resources"] == ["orderservices/scale"]
    }
    assert scale == {"true": ["get", "update", "patch"], "": ["get"]}


def test_several_namespaces_have_a_role_each(helm4: Helm) -> None:
    manifests = helm4.template(OPERATOR, "--set=watchNamespaces={shop,depot}")
    roles = [
        (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        for manifest in manifests
        if manifest["kind"] == "Role" and not manifest["metadata"]["name"].endswith("leadership")
    ]
    parts = ("application", "framework")
    assert sorted(roles) == sorted(
        (namespace, f"orders-{component}") for namespace in ("shop", "depot") for component in parts
    )
    (operator,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    env = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "OPERATOR_NAMESPACE", "value": "shop,depot"} in env
    with pytest.raises(Failed, match="not both"):
        helm4.template(OPERATOR, "--set=watchNamespaces={shop},watchNamespace=depot")


def test_what_was_registered_can_be_taken_away_once_it_is_switched_off(helm4: Helm) -> None:
    rules = [
        rule
        for manifest in helm4.template(OPERATOR, "--set=externalMetrics.enabled=false")
        if manifest["kind"] == "ClusterRole"
        for rule in manifest["rules"]
        if rule["resources"] == ["apiservices"]
    ]
    assert [rule["verbs"] for rule in rules] == [["get", "delete"]]


def test_the_values_of_the_adopting_page_render(helm4: Helm, tmp_path: Path) -> None:
    text = (OPERATOR.parents[1] / "docs" / "adopting.md").read_text()
    _, _, text_after = text.partition("```yaml\n")
    values = tmp_path / "values-orders.yaml"
    values.write_text(text_after.partition("```")[0])
    (resource,) = [
        manifest
        for manifest in helm4.template(ENVIRONMENT, f"--values={values}", "--namespace=orders")
        if manifest["kind"] == "OrderService"
    ]
    assert resource["metadata"]["name"] == "orders"
    owner = {"primarySecretRef": {"name": "orders-database-owner"}}
    assert resource["spec"]["migrations"]["database"] == owner


@pytest.mark.parametrize("chart", [OPERATOR, ENVIRONMENT], ids=lambda chart: chart.name)
def test_an_upgrade_can_reuse_the_values_of_the_last_release(
    helm: Helm, tmp_path: Path, chart: Path
) -> None:
    """`--reuse-values` leaves out what the new chart has as defaults."""
    values_before = released(chart, tmp_path / "before")
    upgraded = shutil.copytree(chart, tmp_path / chart.name)
    shutil.copy(values_before / "values.yaml", upgraded)
    options = values_of("dev") if chart == ENVIRONMENT else ()
    kinds = {manifest["kind"] for manifest in helm.template(upgraded, *options)}
    assert {"Deployment", "OrderService"} & kinds
