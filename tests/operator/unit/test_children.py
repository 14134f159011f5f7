"""Each kind of child, where it has something to decide."""

import re
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from orders import limit_policies
from orders.settings import describe
from orderservice_operator.children import environment, processes
from orderservice_operator.children.context import Context
from orderservice_operator.children.desired import desired
from orderservice_operator.children.http_route import http_route, missing_kind
from orderservice_operator.children.kinds import HTTP_ROUTE, PROMETHEUS_RULE, SERVICE_MONITOR
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.resource import dependencies
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key


def _container(children: Any, process: str, **spec: Any) -> Any:
    deployment = children(**spec)["Deployment", f"minimal-{process}"]
    return deployment["spec"]["template"]["spec"]["containers"][0]


def _unsuffixed(name: str) -> str:
    return re.sub("-[0-9a-f]{10}$", "", name)


def test_a_minimal_resource_has_these_children(children: Any) -> None:
    kinds = sorted(f"{kind} {_unsuffixed(name)}" for kind, name in children())
    four = ("api", "notifier", "relay", "worker")
    assert kinds == sorted(
        [
            "ServiceAccount minimal",
            "Service minimal-api",
            "Service minimal-admin",
            "NetworkPolicy minimal-default-deny",
            "NetworkPolicy minimal-migrate",
            *(f"{kind} minimal-{name}" for name in four for kind in ("ConfigMap", "Deployment")),
            *(f"NetworkPolicy minimal-{name}" for name in four),
            *(f"PodDisruptionBudget minimal-{name}" for name in four),
        ]
    )


@pytest.mark.parametrize("process", processes.ALL, ids=lambda process: process.name)
def test_a_process_runs_its_verb_and_is_probed_on_its_admin_port(
    children: Any, process: processes.Process
) -> None:
    container = _container(children, process.name)
    assert container["command"] == ["orders", process.name]
    assert {"name": "admin", "containerPort": process.admin_port, "protocol": "TCP"} in container[
        "ports"
    ]
    probes = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert probes == {
        "startup": {"path": "/startupz", "port": "admin"},
        "liveness": {"path": "/livez", "port": "admin"},
        "readiness": {"path": "/readyz", "port": "admin"},
    }


@pytest.mark.parametrize("process", processes.ALL, ids=lambda process: process.name)
def test_a_pod_is_given_longer_than_its_drain(children: Any, process: processes.Process) -> None:
    template = children()["Deployment", f"minimal-{process.name}"]["spec"]["template"]["spec"]
    hook = template["containers"][0].get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
    waits = hook["preStop"]["sleep"]["seconds"] + process.drain_s
    assert template["terminationGracePeriodSeconds"] > waits


def test_only_the_api_waits_before_it_stops(children: Any) -> None:
    assert _container(children, "api")["lifecycle"] == {"preStop": {"sleep": {"seconds": 22}}}
    assert "lifecycle" not in _container(children, "worker")


@pytest.mark.parametrize("process", processes.ALL, ids=lambda process: process.name)
def test_the_services_read_every_variable_that_is_set(
    make: Any, process: processes.Process
) -> None:
    """The one thing both packages agree on is the environment; here it is held together."""
    service = make("full", auth={"jwksUrl": None, "keySecretRef": {"name": "key", "key": "pem"}})
    names = set(environment.settings(service, process))
    names |= {entry["name"] for entry in environment.secrets(service, process)}
    variables = {setting.name for setting in describe()}
    assert {name for name in names if name.startswith("ORDERS_")} <= variables


def test_the_operators_defaults_are_the_services(make: Any) -> None:
    service = make("minimal")
    defaults = {setting.name: setting.default for setting in describe()}
    differing = {
        name
        for process in processes.ALL
        for name, value in environment.settings(service, process).items()
        if name in defaults and value != defaults[name]
    }
    assert differing == {
        "ORDERS_ADMIN_PORT",  # without it a process has no probes
        "ORDERS_API_HOST",  # only the gateway beside it calls it
        "ORDERS_API_MAX_WAIT_MS",
        "ORDERS_DATABASE_POOL_SIZE",  # of many pods
        "ORDERS_INVENTORY_URL",
        "ORDERS_PAYMENT_URL",
        "ORDERS_LOG_FORMAT",
        "ORDERS_REDIS_PREFIX",
    }
    # The operator sets these only if they are not the default.
    assert str(service.spec.cancellation.window_seconds) == defaults["ORDERS_CANCELLATION_WINDOW_S"]
    assert service.spec.database.durability.lower() == defaults["ORDERS_DATABASE_DURABILITY"]


def test_api_and_worker_may_each_have_a_user_of_redis(make: Any) -> None:
    def names(**sections: Any) -> dict[str, str]:
        service = make("minimal", **sections)
        return {
            process.name: entry["valueFrom"]["secretKeyRef"]["name"]
            for process in processes.ALL
            for entry in environment.secrets(service, process)
            if entry["name"] == "ORDERS_REDIS_URL"
        }

    shared = {"cache": {"secretRef": {"name": "shared"}}}
    own = {"worker": {"cache": {"secretRef": {"name": "own"}}}}
    assert names() == {}
    assert names(**shared) == {"api": "shared", "worker": "shared"}
    assert names(**shared, **own) == {"api": "shared", "worker": "own"}
    assert names(**own) == {"worker": "own"}


@pytest.mark.parametrize("process", processes.ALL, ids=lambda process: process.name)
def test_the_services_accept_every_value_that_is_set(make: Any, process: processes.Process) -> None:
    from orders import settings

    variables = environment.settings(make("full"), process)
    secrets = {e["name"] for e in environment.secrets(make("full"), process)}
    samples = {
        "ORDERS_DATABASE_URL": "postgresql://a@b/c",
        "ORDERS_DATABASE_REPLICA_URL": "postgresql://a@b/c",
        "ORDERS_REDIS_URL": "redis://a:1",
        "ORDERS_AMQP_URL": "amqp://a",
        "ORDERS_CURSOR_SECRET": "s" * 16,
        "ORDERS_NOTIFICATION_URL": "http://a",
        "ORDERS_NOTIFICATION_SECRET": "whsec_" + "a" * 24,
    }
    environ = variables | {name: samples[name] for name in secrets}
    groups = {
        "api": (
            settings.ApiSettings,
            settings.OrderSettings,
            settings.RateLimitSettings,
            settings.AuthSettings,
            settings.UpstreamSettings,
            settings.CacheSettings,
        ),
        "relay": (settings.MessagingSettings,),
        "worker": (settings.WorkerSettings, settings.MessagingSettings, settings.UpstreamSettings),
        "notifier": (settings.NotificationSettings, settings.MessagingSettings),
    }
    for group in (*groups[process.name], settings.DatabaseSettings, settings.AdminSettings):
        settings.load(group, environ)


def test_policies_of_the_rate_limit_are_what_the_services_read(make: Any) -> None:
    assert dependencies.LIMIT == limit_policies.PATTERN
    text = environment.settings(make("full"), processes.API)["ORDERS_RATE_LIMIT_POLICIES"]
    own = make("full").spec.rate_limit.policies
    read = limit_policies.read(text)
    assert [msgspec.structs.asdict(policy) for policy in read] == [
        msgspec.structs.asdict(policy) for policy in own
    ]
    assert "ORDERS_RATE_LIMIT_POLICIES" not in environment.settings(make("minimal"), processes.API)
    scopes, actions = (
        get_args(literal) for literal in (limit_policies.Scope, limit_policies.Action)
    )
    hints = get_type_hints(dependencies.RateLimitPolicy)
    assert get_args(get_args(hints["scope"])[0]) == scopes
    assert get_args(get_args(hints["action"])[0]) == actions


def test_keys_in_redis_begin_with_the_name_of_the_service(make: Any) -> None:
    service = make("full")
    prefix = f"{service.metadata.namespace}/{service.metadata.name}:"
    prefixes = [
        environment.settings(service, process).get("ORDERS_REDIS_PREFIX")
        for process in (processes.API, processes.WORKER, processes.RELAY)
    ]
    assert prefixes == [prefix, prefix, None]


def test_a_changed_setting_restarts_only_the_process_it_is_of(children: Any) -> None:
    def templates(**spec: Any) -> dict[str, Any]:
        manifests = children(**spec)
        return {
            p.name: manifests["Deployment", f"minimal-{p.name}"]["spec"]["template"]
            for p in processes.ALL
        }

    templates_before, templates_after = templates(), templates(worker={"prefetch": 11})
    assert [
        name for name in templates_before if templates_before[name] != templates_after[name]
    ] == ["worker"]


def test_variables_of_the_pod_template_never_replace_a_secret(children: Any) -> None:
    env = [{"name": "ORDERS_DATABASE_URL", "value": "x"}, {"name": "TZ", "value": "UTC"}]
    names = [e["name"] for e in _container(children, "relay", podTemplate={"env": env})["env"]]
    assert names.count("ORDERS_DATABASE_URL") == 1
    assert "TZ" in names


def test_variables_of_the_pod_template_get_into_every_container(children: Any) -> None:
    env = [{"name": "TZ", "value": "UTC"}]
    manifests = children("full", Context(migrated=False), podTemplate={"env": env})
    manifests |= children("full", podTemplate={"env": env})
    pods = [
        manifest["spec"]["template"]["spec"]
        for manifest in manifests.values()
        if _has_pods(manifest)
    ]
    containers = {container["name"]: container for pod in pods for container in pod["containers"]}
    assert {"api", "relay", "worker", "notifier", "gateway", "migrate"} <= containers.keys()
    assert all(env[0] in container["env"] for container in containers.values())


def _has_pods(child: Any) -> bool:
    return child["kind"] in {"Deployment", "Job"}


def test_variables_of_the_pod_template_never_replace_a_setting_of_the_operator(
    children: Any,
) -> None:
    env = [{"name": "ORDERS_API_HOST", "value": "::1"}, {"name": "TZ", "value": "UTC"}]
    extra = {"podTemplate": {"env": env}}
    api = [entry["name"] for entry in _container(children, "api", **extra)["env"]]
    assert "ORDERS_API_HOST" not in api
    assert "TZ" in api
    # The relay has no such setting, so nothing is overridden there.
    assert "ORDERS_API_HOST" in [e["name"] for e in _container(children, "relay", **extra)["env"]]


def _amounts(requests: dict[str, str], limits: dict[str, str]) -> dict[str, Any]:
    return {"requests": requests, "limits": limits}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, _amounts({"cpu": "500m", "memory": "256Mi"}, {"memory": "512Mi"})),
        (
            {"requests": {"memory": "1Gi"}},
            _amounts({"cpu": "500m", "memory": "1Gi"}, {"memory": "1Gi"}),
        ),
        (
            {"requests": {"memory": "300Mi"}},
            _amounts({"cpu": "500m", "memory": "300Mi"}, {"memory": "512Mi"}),
        ),
        (
            {"limits": {"cpu": "0.2", "memory": "128Mi"}},
            _amounts({"cpu": "0.2", "memory": "128Mi"}, {"cpu": "0.2", "memory": "128Mi"}),
        ),
    ],
)
def test_a_default_gives_way_where_the_api_server_would_refuse_it(
    children: Any, resources: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert _container(children, "api", api={"resources": resources})["resources"] == expected


def test_the_api_scales_by_its_own_cpu_not_the_gateways(children: Any) -> None:
    scaled = children(api={"autoscaling": {"minReplicas": 2, "maxReplicas": 5}})
    (metric,) = scaled["HorizontalPodAutoscaler", "minimal-api"]["spec"]["metrics"]
    assert metric["type"] == "ContainerResource"
    source = metric["containerResource"]
    assert (source["container"], source["name"]) == ("api", "cpu")


def test_a_single_replica_has_no_disruption_budget(children: Any) -> None:
    assert ("PodDisruptionBudget", "minimal-relay") not in children(relay={"replicas": 1})


@pytest.mark.parametrize("budget", [None, {"minAvailable": 1}])
def test_pods_that_an_autoscaler_adds_do_not_go_all_at_once(
    children: Any, budget: dict[str, int] | None
) -> None:
    api: dict[str, Any] = {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}
    if budget:
        api["podDisruptionBudget"] = budget
    spec = children(api=api)["PodDisruptionBudget", "minimal-api"]["spec"]
    assert spec["maxUnavailable"] == 1  # a single pod may go: minAvailable would keep its node
    assert "minAvailable" not in spec


@pytest.mark.parametrize(("minimum", "expected"), [(1, 1), (2, 1), (9, 1)])
def test_a_disruption_budget_always_lets_one_pod_go(
    children: Any, minimum: int, expected: int
) -> None:
    relay = {"replicas": 2, "podDisruptionBudget": {"minAvailable": minimum}}
    budget = children(relay=relay)["PodDisruptionBudget", "minimal-relay"]
    assert budget["spec"]["minAvailable"] == expected
    assert "maxUnavailable" not in budget["spec"]


def test_a_monitor_is_made_only_where_the_kind_exists(children: Any) -> None:
    assert ("ServiceMonitor", "minimal") not in children()
    assert ("ServiceMonitor", "minimal") in children(context=Context(frozenset({SERVICE_MONITOR})))
    options = {"serviceMonitor": "Disabled"}
    assert ("ServiceMonitor", "minimal") not in children(
        context=Context(frozenset({SERVICE_MONITOR})), observability=options
    )


def test_what_a_prometheus_or_grafana_selects_has_the_labels_it_selects_by(children: Any) -> None:
    kinds = frozenset({SERVICE_MONITOR, PROMETHEUS_RULE})
    labels = {"release": "kube-prometheus-stack", "app.kubernetes.io/name": "not-mine"}
    manifests = children(
        context=Context(kinds), observability={"labels": labels, "dashboards": True}
    )
    selected = [manifests["ServiceMonitor", "minimal"], manifests["PrometheusRule", "minimal"]]
    selected += [manifest for key, manifest in manifests.items() if "-dashboard-" in key[1]]
    assert len(selected) > 3
    for manifest in selected:
        assert manifest["metadata"]["labels"]["release"] == "kube-prometheus-stack"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "orderservice"


def test_alerts_link_to_where_runbook_and_grafana_are(children: Any) -> None:
    bases = {
        "runbookBaseUrl": "https://docs.example/orders",
        "dashboardBaseUrl": "https://grafana.example/",
    }
    manifests = children(context=Context(frozenset({PROMETHEUS_RULE})), observability=bases)
    rules = [
        rule["annotations"]
        for group in manifests["PrometheusRule", "minimal"]["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert all(
        note["runbook_url"].startswith("https://docs.example/orders/runbook.md#")
        and note["dashboard"].startswith("https://grafana.example/d/")
        for note in rules
    )


def test_the_worker_knows_the_replicas_whose_lag_it_exports(children: Any) -> None:
    """Only it exports `db_replica_lag_seconds`, which the alert is about."""
    replica = {"replicaSecretRef": {"name": "orders-database", "key": "replicaUrl"}}
    for process, has_replicas in (("api", True), ("worker", True), ("relay", False)):
        environment = _container(children, process, database=replica)["env"]
        named = "ORDERS_DATABASE_REPLICA_URL" in {entry["name"] for entry in environment}
        assert named is has_replicas, process


def test_what_needs_a_session_of_its_own_gets_past_a_pooler(children: Any) -> None:
    database = {
        "primarySecretRef": {"name": "orders-database"},
        "sessionSecretRef": {"name": "orders-database", "key": "sessionUrl"},
        "durability": "Synchronous",
    }
    manifests = children(database=database, context=Context(migrated=False))
    pods = [
        manifest["spec"]["template"]["spec"]
        for (kind, _), manifest in manifests.items()
        if kind in {"Deployment", "Job"}
    ]
    assert len(pods) == 5
    for pod in pods:
        container = next(each for each in pod["containers"] if each["name"] != "gateway")
        keys = {
            variable["name"]: variable["valueFrom"]["secretKeyRef"]["key"]
            for variable in container["env"]
            if "valueFrom" in variable
        }
        assert keys["ORDERS_DATABASE_SESSION_URL"] == "sessionUrl"
    settings = [
        manifest["data"] for (kind, _), manifest in manifests.items() if kind == "ConfigMap"
    ]
    assert [data["ORDERS_DATABASE_DURABILITY"] for data in settings] == ["synchronous"] * 4


def test_until_the_migration_is_done_deployments_are_paused(children: Any, make: Any) -> None:
    templates_before = children(context=Context(migrated=False))
    assert templates_before["Deployment", "minimal-api"]["spec"]["paused"] is True
    assert ("Job", job_name(make())) in templates_before
    templates_after = children(context=Context(migrated=True))
    assert templates_after["Deployment", "minimal-api"]["spec"]["paused"] is False
    assert ("Job", job_name(make())) not in templates_after


def test_another_image_or_database_is_another_migration(make: Any) -> None:
    assert job_name(make()) != job_name(make(image="registry.example/orders:1.0.1"))
    assert job_name(make()) != job_name(make(database={"primarySecretRef": {"name": "other"}}))
    assert job_name(make()) == job_name(make(worker={"prefetch": 11}))
    assert re.fullmatch(r"minimal-migrate-[0-9a-f]{10}", job_name(make()))


def test_network_policies_name_the_few_flows(children: Any) -> None:
    manifests = children("full")
    ports = {
        p.name: [
            port["port"]
            for port in manifests["NetworkPolicy", f"full-{p.name}"]["spec"]["egress"][0]["ports"]
        ]
        for p in processes.ALL
    }
    assert ports["relay"] == [4318, 5671, 6432, 9000]
    assert ports["worker"] == [443, 4318, 5671, 6380, 6432, 9000]
    deny = manifests["NetworkPolicy", "full-default-deny"]["spec"]
    assert deny["ingress"] == []
    assert {port["port"] for rule in deny["egress"] for port in rule["ports"]} == {53, 5353}
    (http, metrics) = manifests["NetworkPolicy", "full-api"]["spec"]["ingress"]
    assert http["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert metrics["from"][1]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "prometheus"}
    }


def test_no_network_policy_when_switched_off(children: Any) -> None:
    manifests = children(networkPolicy={"enabled": False})
    assert not [kind for kind, _ in manifests if kind == "NetworkPolicy"]


def test_an_ingress_and_a_route_send_to_the_service_of_the_gateway(children: Any) -> None:
    manifests = children("full", Context(frozenset({HTTP_ROUTE})))
    rule, other = manifests["Ingress", "full-api"]["spec"]["rules"]
    assert (rule["host"], other["host"]) == ("orders.example", "api.orders.example")
    assert rule["http"] == other["http"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "full-api", "port": {"name": "http"}}
    (port,) = manifests["Service", "full-api"]["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 80, "http")
    assert manifests["HTTPRoute", "full-api"]["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["orders.example"],
        "rules": [{"backendRefs": [{"name": "full-api", "port": 80}]}],
    }


def test_a_route_is_made_only_where_the_kind_exists_and_its_absence_is_told(make: Any) -> None:
    service = make("full")
    assert http_route(service, Context()) is None
    assert "gateway.networking.k8s.io" in missing_kind(service, Context())
    assert not missing_kind(service, Context(frozenset({HTTP_ROUTE})))
    assert not missing_kind(make(), Context())


def test_given_resources_replace_defaults_one_by_one(children: Any) -> None:
    container = _container(children, "api", api={"resources": {"requests": {"cpu": "2"}}})
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "256Mi"},
        "limits": {"memory": "512Mi"},
    }


@pytest.mark.parametrize("seconds", [0, 3600])
def test_only_the_api_is_told_the_cancellation_window_and_only_where_it_differs(
    children: Any, seconds: int
) -> None:
    name = "ORDERS_CANCELLATION_WINDOW_S"

    def windows(**spec: Any) -> dict[str, str]:
        return {
            manifest["metadata"]["labels"]["app.kubernetes.io/component"]: manifest["data"][name]
            for (kind, _), manifest in children(**spec).items()
            if kind == "ConfigMap" and name in manifest["data"]
        }

    assert windows(cancellation={"windowSeconds": seconds}) == {"api": str(seconds)}
    assert windows() == windows(cancellation={"windowSeconds": 1800}) == {}


def test_dashboards_are_made_by_the_oldest_resource_alone(make: Any) -> None:
    """They show every resource; a second set of the same names would replace the first."""
    index = ResourceIndex()
    services = {}
    for name, created in (("old", "2026-01-01T00:00:00Z"), ("new", "2026-01-02T00:00:00Z")):
        service = make(observability={"dashboards": True})
        metadata = msgspec.structs.replace(
            service.metadata, name=name, uid=name, creation_timestamp=created
        )
        services[name] = msgspec.structs.replace(service, metadata=metadata)
        index.put(msgspec.to_builtins(services[name]))
    first = {name: index.has_dashboards_first(service) for name, service in services.items()}
    assert first == {"old": True, "new": False}
    maps = [
        child
        for child in desired(services["new"], Context(dashboards=False))
        if "dashboard" in child["metadata"]["name"]
    ]
    assert maps == []
    index.drop(Key("shop", "old"))
    assert index.has_dashboards_first(services["new"])
