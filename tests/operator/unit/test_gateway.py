"""The gateway beside the api: the only way to it."""

from typing import Any

from gateway import settings
from orderservice_operator.children import environment
from orderservice_operator.children.context import Context
from orderservice_operator.children.http_route import http_route
from orderservice_operator.children.kinds import HTTP_ROUTE
from orderservice_operator.children.network_policy import network_policy
from orderservice_operator.children.processes import API as PROCESS

API = ("Deployment", "minimal-api")
PROBES = {"startup": "/readyz", "liveness": "/livez", "readiness": "/readyz"}
ROUTE = {"parentRefs": [{"name": "public"}]}
TMP = "/tmp"  # noqa: S108 of each container, not of this machine


def _pod(children: Any, **spec: Any) -> Any:
    return children(**spec)[API]["spec"]["template"]["spec"]


def _containers(children: Any, **spec: Any) -> tuple[Any, Any]:
    api, gateway = _pod(children, **spec)["containers"]
    return api, gateway


def _variables(container: Any) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_only_pods_of_the_api_have_a_gateway(children: Any) -> None:
    with_gateway = [
        name
        for (kind, name), child in children().items()
        if kind == "Deployment"
        and "gateway" in [c["name"] for c in child["spec"]["template"]["spec"]["containers"]]
    ]
    assert with_gateway == ["minimal-api"]


def test_the_api_listens_on_the_loopback_where_the_gateway_looks_for_it(children: Any) -> None:
    api, gateway = _containers(children)
    (settings,) = (
        child["data"]
        for (kind, name), child in children().items()
        if kind == "ConfigMap" and name == api["envFrom"][0]["configMapRef"]["name"]
    )
    address = f"{settings['ORDERS_API_HOST']}:{settings['ORDERS_API_PORT']}"
    assert address == _variables(gateway)["GATEWAY_API_ADDRESS"] == "127.0.0.1:8000"
    assert "http" not in [port["name"] for port in api["ports"]]
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports == {"http": 8080, "gateway-admin": 8086}
    assert _variables(gateway)["GATEWAY_PORT"] == "8080"


def test_the_gateway_is_of_the_same_image_and_not_probed_where_clients_are(
    children: Any,
) -> None:
    api, gateway = _containers(children)
    assert (gateway["image"], gateway["command"]) == (api["image"], ["orders-gateway"])
    probes = {name: gateway[f"{name}Probe"]["httpGet"] for name in PROBES}
    assert probes == {
        name: {"path": path, "port": "gateway-admin"} for name, path in PROBES.items()
    }


def test_the_gateway_has_drained_before_the_api_stops_and_all_within_the_grace_period(
    children: Any,
) -> None:
    api, gateway = _containers(children)
    first_s, then_s = (
        container["lifecycle"]["preStop"]["sleep"]["seconds"] for container in (gateway, api)
    )
    assert then_s > first_s + settings.load(_variables(gateway)).drain_s
    assert _pod(children)["terminationGracePeriodSeconds"] > then_s + PROCESS.drain_s


def test_the_containers_write_to_different_places(children: Any) -> None:
    pod = _pod(children)
    mounts = [container["volumeMounts"] for container in pod["containers"]]
    assert mounts == [
        [{"name": "tmp", "mountPath": TMP}],
        [{"name": "gateway-tmp", "mountPath": TMP}],
    ]
    assert {volume["name"] for volume in pod["volumes"]} == {"tmp", "gateway-tmp"}


def test_proxies_are_trusted_only_when_they_are_named(children: Any) -> None:
    _, gateway = _containers(children)
    assert "GATEWAY_TRUSTED_PROXIES" not in _variables(gateway)
    _, gateway = _containers(children, api={"trustedProxies": ["10.0.0.0/8", "fd00::/8"]})
    assert _variables(gateway)["GATEWAY_TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"


def test_the_gateway_reads_what_it_is_given(children: Any) -> None:
    _, container = _containers(children, api={"trustedProxies": ["10.0.0.0/8", "fd00::/8"]})
    read = settings.load(_variables(container))
    assert (read.port, read.api_address) == (8080, ("127.0.0.1:8000",))
    assert read.trusted_proxies == ("10.0.0.0/8", "fd00::/8")
    stops_s = container["lifecycle"]["preStop"]["sleep"]["seconds"] + read.drain_s
    assert _pod(children)["terminationGracePeriodSeconds"] > stops_s


def test_the_gateway_gets_no_secret(children: Any) -> None:
    _, gateway = _containers(children)
    assert "envFrom" not in gateway
    assert not [entry for entry in gateway["env"] if "valueFrom" in entry]


def test_with_a_certificate_everything_in_front_of_the_gateway_follows(children: Any) -> None:
    tls = {"gateway": {"tlsSecretRef": {"name": "shop-tls"}}}
    auth = {"mode": "off", "exposeWithoutAuth": True}
    ingress = {"host": "orders.example"}
    route = {"parentRefs": [{"name": "public"}]}
    manifests = children(api=tls | {"ingress": ingress, "httpRoute": route}, auth=auth)
    name = "minimal-api"
    pod = manifests[API]["spec"]["template"]["spec"]
    api, gateway = pod["containers"]
    assert {port["name"]: port["containerPort"] for port in gateway["ports"]} == {
        "https": 8443,
        "gateway-admin": 8086,
    }
    assert {probe["httpGet"]["port"] for probe in (gateway[f"{kind}Probe"] for kind in PROBES)} == {
        "gateway-admin"
    }
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "gateway-tls"]
    assert volume["secret"]["secretName"] == "shop-tls"
    mounts = {mount["name"]: mount for mount in gateway["volumeMounts"]}
    folder = mounts["gateway-tls"]["mountPath"]
    assert mounts["gateway-tls"]["readOnly"]
    assert "gateway-tls" not in [mount["name"] for mount in api["volumeMounts"]]
    variables = _variables(gateway)
    assert variables["GATEWAY_PORT"] == "8443"
    assert variables["GATEWAY_TLS_CERTIFICATE_FILE"] == f"{folder}/tls.crt"
    assert variables["GATEWAY_TLS_KEY_FILE"] == f"{folder}/tls.key"
    (port,) = manifests["Service", name]["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("https", 443, "https")
    assert port["appProtocol"] == "https"
    incoming = manifests["NetworkPolicy", name]["spec"]["ingress"]
    assert incoming[0]["ports"] == [{"port": 8443, "protocol": "TCP"}]
    (rule,) = manifests["Ingress", name]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": name, "port": {"name": "https"}}


def test_the_route_leads_to_the_port_that_speaks_tls(make: Any) -> None:
    service = make(api={"gateway": {"tlsSecretRef": {"name": "t"}}, "httpRoute": ROUTE})
    manifest = http_route(service, Context(frozenset({HTTP_ROUTE})))
    assert manifest is not None
    assert manifest["spec"]["rules"][0]["backendRefs"] == [{"name": "minimal-api", "port": 443}]


def test_while_pods_without_a_certificate_run_their_port_stays_open(make: Any) -> None:
    service_before, service_after = make(), make(api={"gateway": {"tlsSecretRef": {"name": "t"}}})
    policy = network_policy(service_after, PROCESS, Context(frozenset(), before=service_before))
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == [8080, 8443]


def test_a_renewed_certificate_replaces_no_pod(make: Any) -> None:
    entries = environment.secret_entries(
        make(api={"gateway": {"tlsSecretRef": {"name": "t"}}}), PROCESS
    )
    assert "t" not in {name for name, _ in entries}
