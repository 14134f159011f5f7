"""The operator against a real RabbitMQ, alone and from a resource in a real API server."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pika
import pytest
import requests
from brokers import PASSWORD, Rabbit

from devstack.servers import rabbitmq
from kube.api import Api, Object
from orderservice_operator.children import processes, topology
from orderservice_operator.errors import Permanent, Transient
from orderservice_operator.rabbitmq.management import Address, Management
from orderservice_operator.resource.spec import OrderService
from orderservice_topology.difference import Broker, Changes, changes
from orderservice_topology.topology import Topology

SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
Example = Callable[..., Object]


@pytest.fixture
def vhost(rabbit: Rabbit, request: pytest.FixtureRequest) -> Iterator[str]:
    """Make an empty virtual host; it has a slash, as the default one does."""
    name = f"/{request.node.name[:40]}"
    rabbit.call("PUT", f"vhosts/{quote(name, safe='')}")
    yield name
    rabbit.call("DELETE", f"vhosts/{quote(name, safe='')}")


def _with(address: Address, work: Callable[[Management], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with aiohttp.ClientSession() as session:
            return await work(Management(session, address))

    return asyncio.run(main())


def _applied(rabbit: Rabbit, vhost: str, desired: Topology) -> Changes:
    """Apply a topology once; return what a second look would change."""

    async def twice(management: Management) -> Changes:
        await management.apply(changes(desired, await management.read()))
        return changes(desired, await management.read())

    result: Changes = _with(rabbit.address(vhost), twice)
    return result


def _at(service: Any, vhost: str) -> Topology:
    manifest = service(messaging={"vhost": vhost})
    manifest["metadata"] |= {"namespace": "n", "uid": "u"}
    return topology.desired(msgspec.convert(manifest, OrderService))


def test_a_topology_is_made_once(rabbit: Rabbit, vhost: str, example: Example) -> None:
    assert _applied(rabbit, vhost, _at(example, vhost)) == Changes()


def test_messages_are_counted(rabbit: Rabbit, vhost: str, example: Example) -> None:
    _applied(rabbit, vhost, _at(example, vhost))
    message = {
        "properties": {"delivery_mode": 2},
        "routing_key": "order.created.v1",
        "payload": "{}",
        "payload_encoding": "string",
    }
    path = f"exchanges/{quote(vhost, safe='')}/orders/publish"
    assert rabbit.call("POST", path, json=message) == {"routed": True}

    async def look(management: Management) -> Broker:
        return await management.read()

    def counted() -> bool:
        broker: Broker = _with(rabbit.address(vhost), look)
        return broker.messages("order-processing") == 1

    Api(requests.Session(), "").wait(counted)


def test_a_wrong_password_says_what_to_do(rabbit: Rabbit, vhost: str) -> None:
    with pytest.raises(Permanent, match="tag `policymaker`"):
        _with(rabbit.address(vhost, "wrong"), lambda management: management.read())


def test_a_refusal_is_told_in_the_brokers_words_and_a_wrong_path_by_its_status(
    rabbit: Rabbit, vhost: str
) -> None:
    with pytest.raises(Permanent, match="/nowhere: 404: Not Found"):
        _with(rabbit.address("nowhere"), lambda management: management.read())
    wrong = msgspec.structs.replace(rabbit.address(vhost), url=f"{rabbit.url}/wrong")
    assert _with(wrong, lambda management: management.cluster()) is None
    with pytest.raises(Permanent, match=r": 4\d\d$"):
        _with(wrong, lambda management: management.read())


def test_a_broker_that_is_not_there_is_worth_trying_again() -> None:
    with pytest.raises(Transient, match="management API"):
        _with(Address("http://127.0.0.1:9", "a", "b", "/"), lambda management: management.read())


def test_a_queue_of_another_type_is_told_and_left_alone(
    rabbit: Rabbit, vhost: str, example: Example
) -> None:
    path = f"queues/{quote(vhost, safe='')}/order-processing"
    rabbit.call("PUT", path, json={"durable": True, "arguments": {"x-queue-type": "classic"}})
    remaining = _applied(rabbit, vhost, _at(example, vhost))
    assert remaining.queues == ()
    (mismatch,) = remaining.mismatches
    assert "classic" in mismatch
    assert "quorum" in mismatch


def test_a_policymaker_is_enough(rabbit: Rabbit, vhost: str, example: Example) -> None:
    """The least that has to be given: no administrator, and only names that begin with order."""
    rabbit.call("PUT", "users/topology", json={"password": PASSWORD, "tags": "policymaker"})
    rights = {"configure": "^order", "write": "^order", "read": "^order"}
    rabbit.call("PUT", f"permissions/{quote(vhost, safe='')}/topology", json=rights)
    address = Address(rabbit.url, "topology", PASSWORD, vhost)
    desired = _at(example, vhost)

    async def make(management: Management) -> Changes:
        await management.apply(changes(desired, await management.read()))
        return changes(desired, await management.read())

    assert _with(address, make) == Changes()


# From here on through the operator.


@pytest.fixture
def with_broker(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, example: Example
) -> Callable[..., None]:
    """Apply a minimal resource that has a broker; keywords go into `messaging`."""
    address = f"127.0.0.1:{rabbit.amqp_port}/{quote(vhost, safe='')}"
    url = f"amqp://{rabbitmq.USER}:{PASSWORD}@{address}"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "orders-messaging"},
        "stringData": {"url": url},
    }

    def apply(**messaging: Any) -> None:
        api.apply(secret, namespace)
        section = {"managementUrl": rabbit.url, "vhost": vhost, **messaging}
        api.apply(example(messaging=section), namespace)

    return apply


@pytest.fixture
def tag_least(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str
) -> Iterator[Callable[[str], None]]:
    """Make a user that may only what the operator needs, and its Secret; give what tags it."""

    def tag(tags: str) -> None:
        rabbit.call("PUT", "users/least", json={"password": PASSWORD, "tags": tags})

    tag("")
    rights = {"configure": "^order", "write": "^order", "read": "^order"}
    rabbit.call("PUT", f"permissions/{quote(vhost, safe='')}/least", json=rights)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/basic-auth",
        "metadata": {"name": "topology"},
        "stringData": {"username": "least", "password": PASSWORD},
    }
    api.apply(secret, namespace)
    yield tag
    rabbit.call("DELETE", "users/least")


def _topology(api: Api, namespace: str) -> tuple[str, str]:
    status = api.get(*SERVICES, namespace, "minimal").get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "TopologyReady":
            return condition["status"], condition["reason"]
    return "", ""


def _in_place(api: Api, namespace: str) -> bool:
    return _topology(api, namespace) == ("True", "InPlace")


@pytest.mark.usefixtures("operator")
def test_drift_in_the_broker_is_repaired(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    with_broker: Callable[..., None],
) -> None:
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    inside = quote(vhost, safe="")
    rabbit.call("DELETE", f"queues/{inside}/order-processing")
    rabbit.call("DELETE", f"policies/{inside}/orders:queue:order-notifications")
    api.wait(lambda: rabbit.has(f"queues/{inside}/order-processing"))
    api.wait(lambda: rabbit.has(f"policies/{inside}/orders:queue:order-notifications"))
    bindings = f"queues/{inside}/order-processing/bindings"
    api.wait(lambda: len(rabbit.call("GET", bindings)) == 5)


Drift = tuple[Callable[[], object], Callable[[], bool]]


def _drifts(rabbit: Rabbit, inside: str) -> dict[str, Drift]:
    """Return what people break by hand, and how to tell that it is as it was."""
    queue, policy = f"queues/{inside}/order-notifications", f"policies/{inside}/orders:queue"
    policy = f"{policy}:order-notifications"
    bindings = f"bindings/{inside}/e/orders/q/order-processing"
    policy_before, bound = rabbit.call("GET", policy), rabbit.call("GET", bindings)
    weaker = policy_before | {"definition": policy_before["definition"] | {"delivery-limit": 1}}
    unbound = quote(bound[0]["properties_key"], safe="")
    return {
        "queue_deleted": (lambda: rabbit.call("DELETE", queue), lambda: rabbit.has(queue)),
        "policy_changed": (
            lambda: rabbit.call("PUT", policy, json=weaker),
            lambda: bool(rabbit.call("GET", policy)["definition"] == policy_before["definition"]),
        ),
        "binding_gone": (
            lambda: rabbit.call("DELETE", f"{bindings}/{unbound}"),
            lambda: len(rabbit.call("GET", bindings)) == len(bound),
        ),
    }


@pytest.mark.figures
def test_drift_in_the_broker_at_default_settings(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    with_broker: Callable[..., None],
    start_operator: Callable[..., Any],
    figure: Callable[[str, float], None],
) -> None:
    """Broken right after a look, so that it takes as long as it can."""
    operator = start_operator("default", OPERATOR_NAMESPACE=namespace)
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    drifts, took_s = _drifts(rabbit, quote(vhost, safe="")), dict[str, list[float]]()
    for _ in range(3):
        began_at = time.monotonic()
        for spoil, is_right in drifts.values():
            spoil()
            assert not is_right()
        for name, (_, is_right) in drifts.items():
            api.wait(is_right)
            took_s.setdefault(name, []).append(time.monotonic() - began_at)
    for name, values in took_s.items():
        figure(f"broker_{name}_repaired_at_most_s", max(values))
    operator.stop()


@pytest.mark.usefixtures("operator")
def test_the_status_tells_how_deep_the_queues_are(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    message = {
        "properties": {},
        "routing_key": "order.created.v1",
        "payload": "{}",
        "payload_encoding": "string",
    }
    rabbit.call("POST", f"exchanges/{quote(vhost, safe='')}/orders/publish", json=message)

    def counted() -> bool:
        status = api.get(*SERVICES, namespace, "minimal")["status"]
        depth: int = status.get("processing", {}).get("messages", 0)
        return depth == 1

    api.wait(counted)


@pytest.mark.usefixtures("operator")
def test_with_retain_a_deletion_waits_for_nobody(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    assert "finalizers" not in api.get(*SERVICES, namespace, "minimal")["metadata"]
    api.delete(*SERVICES, namespace, "minimal")
    api.wait(lambda: not api.exists(*SERVICES, namespace, "minimal"))
    assert rabbit.has(f"queues/{quote(vhost, safe='')}/order-processing")


@pytest.mark.usefixtures("operator", "nodes")
def test_empty_queues_go_with_the_resource_when_asked(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    with_broker: Callable[..., None],
    tag_least: Callable[[str], None],
) -> None:
    """But not before every pod that might publish has ended; for that, too, the least user does."""
    tag_least("policymaker")
    with_broker(managementSecretRef={"name": "topology"}, deletionPolicy="DeleteIfEmpty")
    api.wait(lambda: _in_place(api, namespace))
    api.delete(*SERVICES, namespace, "minimal")
    took_s = api.wait(lambda: not api.exists(*SERVICES, namespace, "minimal"))
    assert took_s > max(process.grace_period_s for process in processes.ALL)
    assert rabbit.call("GET", f"queues/{quote(vhost, safe='')}") == []
    assert rabbit.call("GET", f"policies/{quote(vhost, safe='')}") == []


@pytest.mark.usefixtures("operator", "nodes")
def test_queues_that_hold_messages_stay(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    with_broker: Callable[..., None],
) -> None:
    with_broker(deletionPolicy="DeleteIfEmpty")
    api.wait(lambda: _in_place(api, namespace))
    message = {
        "properties": {"delivery_mode": 2},
        "routing_key": "order.created.v1",
        "payload": "{}",
        "payload_encoding": "string",
    }
    inside = quote(vhost, safe="")
    rabbit.call("POST", f"exchanges/{inside}/orders/publish", json=message)
    api.delete(*SERVICES, namespace, "minimal")
    api.wait(lambda: not api.exists(*SERVICES, namespace, "minimal"))
    assert rabbit.has(f"queues/{inside}/order-processing")
    reasons = {event["reason"] for event in api.list("v1", "events", namespace)}
    assert "QueuesLeft" in reasons


@pytest.mark.usefixtures("operator", "nodes")
def test_a_message_that_comes_late_is_not_deleted_with_its_queue(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    with_broker: Callable[..., None],
) -> None:
    """Others publish, too; the numbers that a broker lists are up to 5 s old."""
    with_broker(deletionPolicy="DeleteIfEmpty")
    api.wait(lambda: _in_place(api, namespace))
    api.delete(*SERVICES, namespace, "minimal")
    inside = quote(vhost, safe="")
    time.sleep(max(process.grace_period_s for process in processes.ALL) + 10)
    message = {
        "properties": {"delivery_mode": 2},
        "routing_key": "order.created.v1",
        "payload": "{}",
        "payload_encoding": "string",
    }
    routed = 0

    def is_gone() -> bool:
        nonlocal routed
        url = f"{rabbit.url}/api/exchanges/{inside}/orders/publish"
        answer = rabbit.session.post(url, json=message, timeout=30)
        routed += answer.ok and answer.json()["routed"]
        return not api.exists(*SERVICES, namespace, "minimal")

    api.wait(is_gone)
    assert not routed or _has_messages(rabbit, inside, routed)


def _has_messages(rabbit: Rabbit, inside: str, count: int) -> bool:
    """Return whether a queue has so many messages, once its numbers are up to date."""
    for _ in range(30):
        queue = rabbit.call("GET", f"queues/{inside}/order-processing")
        if queue.get("messages", 0) >= count:
            return True
        time.sleep(1)
    return False


def _named(
    example: Example, name: str, rabbit: Rabbit, vhost: str, **messaging: Any
) -> dict[str, Any]:
    section = {"managementUrl": rabbit.url, "vhost": vhost, **messaging}
    manifest: dict[str, Any] = example(messaging=section) | {"metadata": {"name": name}}
    return manifest


def _verdict(api: Api, namespace: str, name: str, kind: str = "TopologyReady") -> tuple[str, str]:
    status = api.get(*SERVICES, namespace, name).get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    condition = conditions.get(kind, {"reason": "", "message": ""})
    return condition["reason"], condition["message"]


def _limit(rabbit: Rabbit, vhost: str) -> int:
    path = f"policies/{quote(vhost, safe='')}/orders:queue:order-processing"
    limit: int = rabbit.call("GET", path)["definition"]["delivery-limit"]
    return limit


@pytest.mark.usefixtures("operator", "nodes")
def test_of_two_resources_in_a_virtual_host_the_older_has_it(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, example: Example, with_broker: Any
) -> None:
    """The name of the broker makes no difference; when the older resource goes, the queues stay."""
    with_broker(deliveryLimit=11, deletionPolicy="DeleteIfEmpty")
    api.wait(lambda: _in_place(api, namespace))
    api.wait(lambda: _verdict(api, namespace, "minimal", "Ready")[0] == "AllReady")
    time.sleep(1.1)  # creation times are in whole seconds
    alias = rabbit.url.replace("127.0.0.1", "localhost")
    younger = _named(
        example,
        "younger",
        rabbit,
        vhost,
        managementUrl=alias,
        deliveryLimit=12,
        deletionPolicy="DeleteIfEmpty",
    )
    api.apply(younger, namespace)
    api.wait(lambda: _verdict(api, namespace, "younger")[0] == "VhostShared")
    assert f"{namespace}/minimal" in _verdict(api, namespace, "younger")[1]
    assert "VhostShared" not in _verdict(api, namespace, "minimal")
    assert _limit(rabbit, vhost) == 11

    api.delete(*SERVICES, namespace, "younger")
    api.wait(lambda: not api.exists(*SERVICES, namespace, "younger"))
    queue = f"queues/{quote(vhost, safe='')}/order-processing"
    assert rabbit.has(queue)

    api.apply(younger, namespace)
    api.wait(lambda: _verdict(api, namespace, "younger")[0] == "VhostShared")
    api.delete(*SERVICES, namespace, "minimal")
    api.wait(lambda: not api.exists(*SERVICES, namespace, "minimal"))
    assert rabbit.has(queue)
    api.wait(lambda: _verdict(api, namespace, "younger")[0] == "InPlace")
    assert _limit(rabbit, vhost) == 12


@pytest.mark.usefixtures("operator")
def test_a_queue_made_otherwise_is_told_with_both_values_and_keeps_its_messages(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    path = f"queues/{quote(vhost, safe='')}/order-processing"
    rabbit.call("PUT", path, json={"durable": True, "arguments": {"x-queue-type": "classic"}})
    with_broker()
    api.wait(lambda: _topology(api, namespace) == ("False", "Mismatch"))
    message = _verdict(api, namespace, "minimal")[1]
    assert "classic" in message
    assert "quorum" in message
    assert _verdict(api, namespace, "minimal", "Degraded")[0] == "Problems"
    time.sleep(3)  # more than one look
    assert rabbit.call("GET", path)["type"] == "classic"


@pytest.mark.usefixtures("operator")
def test_a_stray_binding_goes_and_a_stronger_policy_is_told(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    inside = quote(vhost, safe="")
    binding_path = f"bindings/{inside}/e/orders/q/order-processing"
    rabbit.call("POST", binding_path, json={"routing_key": "order.completed.v1"})
    api.wait(lambda: len(rabbit.call("GET", binding_path)) == 4)
    stronger = {"pattern": ".*", "definition": {"max-length": 5}, "priority": 50}
    rabbit.call("PUT", f"policies/{inside}/all", json=stronger)
    api.wait(lambda: _topology(api, namespace) == ("False", "PolicyShadowed"))
    rabbit.call("DELETE", f"policies/{inside}/all")
    api.wait(lambda: _in_place(api, namespace))


@pytest.mark.usefixtures("operator")
def test_an_exchange_that_obeys_another_policy_is_told(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    """A message that no queue is bound for would be lost without an error."""
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    other = {
        "pattern": "^orders$",
        "definition": {"alternate-exchange": "amq.fanout"},
        "apply-to": "exchanges",
        "priority": 50,
    }
    path = f"policies/{quote(vhost, safe='')}/elsewhere"
    rabbit.call("PUT", path, json=other)
    api.wait(lambda: _topology(api, namespace) == ("False", "PolicyShadowed"))
    assert "exchange orders obeys policy 'elsewhere'" in _verdict(api, namespace, "minimal")[1]
    rabbit.call("DELETE", path)
    api.wait(lambda: _in_place(api, namespace))


@pytest.mark.usefixtures("operator", "nodes")
def test_what_an_administrator_limits_is_told_and_can_be_agreed_to(
    api: Api, rabbit: Rabbit, vhost: str, namespace: str, with_broker: Callable[..., None]
) -> None:
    with_broker()
    api.wait(lambda: _in_place(api, namespace))
    strict = {"pattern": "^order-", "definition": {"max-length": 1000}, "apply-to": "queues"}
    path = f"operator-policies/{quote(vhost, safe='')}/strict"
    rabbit.call("PUT", path, json=strict)
    api.wait(lambda: _topology(api, namespace) == ("False", "OperatorPolicyLimits"))
    message = _verdict(api, namespace, "minimal")[1]
    assert "has max-length 1000 instead of 1000000 by operator policy 'strict'" in message
    api.wait(lambda: _verdict(api, namespace, "minimal", "Ready")[0] == "AllReady")
    with_broker(maxLength=1000)
    api.wait(lambda: _in_place(api, namespace))
    losing = strict | {"definition": {"expires": 3_600_000}}
    rabbit.call("PUT", path, json=losing)
    api.wait(lambda: _topology(api, namespace) == ("False", "OperatorPolicyLosesMessages"))
    api.wait(lambda: _verdict(api, namespace, "minimal", "Ready")[0] == "TopologyNotReady")
    rabbit.call("DELETE", path)
    api.wait(lambda: _in_place(api, namespace))


@pytest.mark.usefixtures("operator")
def test_the_least_user_is_enough_and_a_lesser_one_is_told_what_it_lacks(
    api: Api, namespace: str, with_broker: Callable[..., None], tag_least: Callable[[str], None]
) -> None:
    tag_least("management")
    with_broker(managementSecretRef={"name": "topology"})
    api.wait(lambda: _topology(api, namespace) == ("False", "Refused"))
    assert "tag `policymaker`" in _verdict(api, namespace, "minimal")[1]

    tag_least("policymaker")
    api.wait(lambda: _in_place(api, namespace))


@pytest.fixture
def provisioned(api: Api, rabbit: Rabbit, namespace: str, example: Example) -> Iterator[Any]:
    """Yield a function that applies a resource with a virtual host and a user of its own."""
    name, address = f"own-{namespace}", f"127.0.0.1:{rabbit.amqp_port}"
    administrator = {"username": rabbitmq.USER, "password": PASSWORD}

    def apply(password: str) -> str:
        url = f"amqp://{name}:{password}@{address}/{name}"
        for secret, kind, data in (
            ("orders-messaging", "Opaque", {"url": url}),
            ("administrator", "kubernetes.io/basic-auth", administrator),
        ):
            manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}}
            api.apply(manifest | {"type": kind, "stringData": data}, namespace)
        messaging = {
            "managementUrl": rabbit.url,
            "managementSecretRef": {"name": "administrator"},
            "vhost": name,
            "provision": ["VirtualHost", "Users"],
        }
        api.apply(example(messaging=messaging), namespace)
        return url

    yield apply
    for kind in ("vhosts", "users"):
        rabbit.session.delete(f"{rabbit.url}/api/{kind}/{name}", timeout=30)


def _consumes(url: str) -> bool:
    """Return whether a user may publish, and consume from its own queue, by AMQP."""
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
    except pika.exceptions.AMQPError:
        return False
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("orders", "order.created.v1", b"{}", mandatory=True)
    channel.basic_get("order-processing", auto_ack=True)
    connection.close()
    return True


@pytest.mark.usefixtures("operator")
def test_a_virtual_host_and_users_are_made_when_asked(
    api: Api, rabbit: Rabbit, namespace: str, provisioned: Any
) -> None:
    """And a changed password is carried to the broker."""
    url = provisioned("first")
    api.wait(lambda: _in_place(api, namespace))
    assert _consumes(url)
    name = f"own-{namespace}"
    rights = rabbit.call("GET", f"permissions/{name}/{name}")
    assert rights["configure"] == "^$"
    assert rabbit.call("GET", f"users/{name}")["tags"] in ([], "")
    changed = provisioned("second")
    api.wait(lambda: _consumes(changed))
    assert not _consumes(url)
    # A person's user is never taken over.
    person = {"password": "of a person", "tags": "monitoring"}
    rabbit.call("PUT", f"users/{name}", json=person)
    api.wait(lambda: _topology(api, namespace) == ("False", "Refused"))
    assert "exists with tags" in _verdict(api, namespace, "minimal")[1]


@pytest.mark.usefixtures("operator")
def test_brokers_that_hang_hold_up_no_other(
    api: Api,
    rabbit: Rabbit,
    vhost: str,
    namespace: str,
    example: Example,
    with_broker: Callable[..., None],
) -> None:
    """More resources than callers, on a broker that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for number in range(20):
            api.apply(
                _named(example, f"hangs-{number}", rabbit, f"v{number}", managementUrl=url),
                namespace,
            )
        with_broker()
        # Once, until the first requests are given up, all callers may wait for it.
        api.wait(lambda: _in_place(api, namespace))
        path = f"queues/{quote(vhost, safe='')}/order-processing"
        rabbit.call("DELETE", path)
        api.wait(lambda: rabbit.has(path))
        api.wait(lambda: _verdict(api, namespace, "hangs-7")[0] == "Unreachable")
        api.delete_all(*SERVICES, namespace)
