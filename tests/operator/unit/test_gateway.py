"""The gateway beside the api: the only way to it."""

from typing import Any

from gateway import settings
from orderservice_operator.children.processes import API as PROCESS

API = ("Deployment", "minimal-api")
PROBES = {"startup": "/readyz", "liveness": "/livez", "readiness": "/readyz"}
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
    first_s, then_s = (one["lifecycle"]["preStop"]["sleep"]["seconds"] for one in (gateway, api))
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
