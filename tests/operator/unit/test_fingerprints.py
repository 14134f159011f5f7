"""Digests of Secrets: of the keys that a process reads, and of no others."""

import asyncio
import time
from itertools import groupby, pairwise
from typing import Any

import msgspec
import pytest

from orderservice_operator.children import environment, processes
from orderservice_operator.children.manifest import COMPONENT_LABEL as COMPONENT
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.errors import NotFound, Transient
from orderservice_operator.resource.key import Key

DATA = {
    "orders": {"cursorSecret": "Yw=="},
    "orders-database": {"url": "ZA=="},
    "orders-messaging": {"url": "bQ=="},
    "orders-webhook": {"url": "dw==", "secret": "cw=="},
}


class Server:
    """The part of a client that is used; `paths` are those that were read."""

    def __init__(self, **changed: dict[str, str]) -> None:
        self.data = DATA | {name.replace("_", "-"): entries for name, entries in changed.items()}
        self.paths: list[str] = []
        self.fault: Exception | None = None

    async def get(self, path: str) -> Manifest:
        self.paths.append(path)
        if self.fault:
            raise self.fault
        name = path.rpartition("/")[2]
        if not self.data[name]:
            raise NotFound(name)
        return {"data": self.data[name]}


def _of(server: Server, service: Any, kept_s: float = 60) -> dict[str, str]:
    fingerprints = Fingerprints(server, kept_s)  # type: ignore[arg-type] # all that is used of it
    return asyncio.run(fingerprints.of(service))


def test_only_what_a_process_reads_is_in_its_digest(make: Any) -> None:
    digests_before = _of(Server(), make())
    digests_after = _of(Server(orders_webhook={"url": "dw==", "secret": "eA=="}), make())
    assert {name for name in digests_before if digests_before[name] != digests_after[name]} == {
        "notifier"
    }
    assert _of(Server(orders_database={"url": "ZA==", "other": "eA=="}), make()) == digests_before


def test_every_secret_of_a_pod_is_in_its_digest_but_the_one_that_is_read_again(
    make: Any, children: Any
) -> None:
    """A change that no roll-out follows would leave pods with a secret that is taken away."""
    variable = {
        "name": "OTEL_EXPORTER_OTLP_HEADERS",
        "valueFrom": {"secretKeyRef": {"name": "collector", "key": "headers"}},
    }
    spec = {
        "podTemplate": {"env": [variable]},
        "auth": {
            "mode": "jwt", "keySecretRef": {"name": "keys"}, "jwksUrl": None, "issuer": "us",
            "audience": "orders", "algorithms": "HS256",
        },
    }  # fmt: skip
    service = make("full", **spec)
    for (kind, _), child in children("full", **spec).items():
        if kind == "Deployment":
            pod, process = child["spec"]["template"]["spec"], child["metadata"]["labels"][COMPONENT]
            [definition] = [each for each in processes.ALL if each.name == process]
            assert _secrets_of(pod) == environment.secret_entries(service, definition), process


def _secrets_of(pod: Manifest) -> set[tuple[str, str]]:
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    variables = [variable for container in containers for variable in container.get("env", [])]
    sources = [variable.get("valueFrom", {}).get("secretKeyRef") for variable in variables]
    mounted = [
        (volume["secret"]["secretName"], item["key"])
        for volume in pod["volumes"]
        if "secret" in volume and volume["name"] != "gateway-tls"  # followed without a restart
        for item in volume["secret"]["items"]
    ]
    return {(source["name"], source["key"]) for source in sources if source} | set(mounted)


def test_the_same_content_looks_different_elsewhere(make: Any) -> None:
    service = make()
    metadata = msgspec.structs.replace(service.metadata, uid="u-2")
    other = msgspec.structs.replace(service, metadata=metadata)
    assert not set(_of(Server(), service).values()) & set(_of(Server(), other).values())


def _with_optional_variable(make: Any) -> Any:
    source = {"name": "collector", "key": "headers", "optional": True}
    variable = {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": source}}
    return make(podTemplate={"env": [variable]})


def test_an_optional_secret_that_changes_comes_or_goes_changes_the_digests(make: Any) -> None:
    """A pod that starts later would read it: pods of one revision would differ."""
    service = _with_optional_variable(make)
    contents = [{"headers": "YQ=="}, {"headers": "Yg=="}, {}]
    digests = [_of(Server(collector=content), service) for content in contents]
    for process in digests[0]:
        assert len({digest[process] for digest in digests}) == len(digests), process
    assert _of(Server(collector={"other": "YQ=="}), service) == digests[-1]
    assert digests[-1] == _of(Server(), make()), "no pods are replaced for one that is not there"


def test_an_optional_secret_that_is_not_there_is_no_lack_and_read_once(make: Any) -> None:
    server, service = Server(collector={}), _with_optional_variable(make)
    fingerprints = Fingerprints(server, 60)  # type: ignore[arg-type] # all that is used of it
    secret = Key("shop", "collector")

    async def twice() -> None:
        await fingerprints.of(service)
        read = fingerprints._read[secret]
        fingerprints._read[secret] = msgspec.structs.replace(read, at=read.at - 60)
        await fingerprints.of(service)

    asyncio.run(twice())
    assert server.paths.count("/api/v1/namespaces/shop/secrets/collector") == 1
    assert fingerprints.missing(service) == ()


@pytest.mark.parametrize("entries", [{}, {"elsewhere": "eA=="}])
def test_a_process_that_lacks_an_entry_has_no_digest(make: Any, entries: dict[str, str]) -> None:
    assert _of(Server(orders_messaging=entries), make()).keys() == {"api", "migrate"}


def test_a_secret_is_read_by_name_and_once(make: Any) -> None:
    server = Server()
    fingerprints = Fingerprints(server, 60)  # type: ignore[arg-type] # all that is used of it

    async def twice() -> None:
        assert await fingerprints.of(make()) == await fingerprints.of(make())

    asyncio.run(twice())
    root = "/api/v1/namespaces/shop/secrets"
    assert sorted(server.paths) == [f"{root}/{name}" for name in sorted(DATA)]


def test_a_server_that_does_not_answer_is_no_lack_of_a_secret(make: Any) -> None:
    server = Server()
    server.fault = Transient("busy")
    with pytest.raises(Transient):
        _of(server, make())


def test_a_reading_that_fails_late_takes_nothing_back(make: Any) -> None:
    """A digest that went back to what it was would replace pods, and replace them again."""
    server = Server()

    async def run() -> list[str]:
        fingerprints = Fingerprints(server, 0.02)  # type: ignore[arg-type] # as above
        digests = [(await fingerprints.of(make()))["api"]]
        requested, answered, fetch = asyncio.Event(), asyncio.Event(), server.get

        async def late(path: str) -> Manifest:
            if requested.is_set():
                return await fetch(path)
            requested.set()
            await answered.wait()
            raise Transient("late")

        server.get = late  # type: ignore[method-assign] # only from now on
        notified = asyncio.Event()
        reading = asyncio.create_task(fingerprints.run(lambda _: notified.set()))
        await requested.wait()
        server.data = {name: dict.fromkeys(data, "bmV3") for name, data in DATA.items()}
        digests.append((await fingerprints.of(make()))["api"])
        answered.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        digests.append((await fingerprints.of(make()))["api"])
        async with asyncio.timeout(60):
            await notified.wait()
        await asyncio.sleep(0.2)
        digests.append((await fingerprints.of(make()))["api"])
        reading.cancel()
        return digests

    digests = asyncio.run(run())
    assert digests[-1] != digests[0]
    assert [value for value, _ in groupby(digests)] == list(dict.fromkeys(digests))


def test_a_version_that_was_not_read_is_read_at_once_and_only_that(make: Any) -> None:
    server = Server()
    fetch = server.get

    async def versioned(path: str) -> Manifest:
        return await fetch(path) | {"metadata": {"resourceVersion": "7"}}

    server.get = versioned  # type: ignore[method-assign] # as an API server answers

    async def run() -> list[str]:
        fingerprints = Fingerprints(server, 86_400)  # type: ignore[arg-type] # as above
        await fingerprints.of(make())
        notified = asyncio.Queue[Key]()
        reading = asyncio.create_task(fingerprints.run(notified.put_nowait))
        server.paths.clear()
        server.data["orders-webhook"] = {"url": "dw==", "secret": "bmV3"}
        fingerprints.note_version(Key("shop", "orders"), "7")  # is what was read
        fingerprints.note_version(Key("shop", "not-ours"), "8")
        fingerprints.note_version(Key("shop", "orders-webhook"), "8")
        async with asyncio.timeout(60):
            assert await notified.get() == Key("shop", "minimal")
        reading.cancel()
        return server.paths

    assert asyncio.run(run()) == ["/api/v1/namespaces/shop/secrets/orders-webhook"]


def test_a_change_while_a_secret_is_read_first_is_not_overlooked(make: Any) -> None:
    server = Server()
    fetch = server.get
    fingerprints = Fingerprints(server, 86_400)  # type: ignore[arg-type] # as above
    first = Key("shop", "orders")

    async def overtaken(path: str) -> Manifest:
        content = await fetch(path)
        if path.endswith(f"/{first.name}"):
            server.get = fetch  # type: ignore[method-assign] # only the first
            server.data[first.name] = {"cursorSecret": "bmV3"}
            fingerprints.note_version(first, "8")
        return content | {"metadata": {"resourceVersion": "7"}}

    server.get = overtaken  # type: ignore[method-assign] # as a Secret that changes meanwhile

    async def run() -> None:
        await fingerprints.of(make())
        notified = asyncio.Event()
        reading = asyncio.create_task(fingerprints.run(lambda _: notified.set()))
        async with asyncio.timeout(60):
            await notified.wait()
        reading.cancel()

    asyncio.run(run())


class Crowd(Server):
    """Has any Secret; those of one namespace change once `changed` is set."""

    changed = ""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.enough, self.done, self.times = enough, asyncio.Event(), list[float]()

    async def get(self, path: str) -> Manifest:
        namespace, _, name = path.split("/")[4:]
        self.paths.append(path)
        self.times.append(time.monotonic())
        if len(self.paths) >= self.enough:
            self.done.set()
        data = DATA[name]
        return {"data": dict.fromkeys(data, "bmV3") if namespace == self.changed else data}


def _in(namespace: str, service: Any) -> Any:
    metadata = msgspec.structs.replace(service.metadata, namespace=namespace)
    return msgspec.structs.replace(service, metadata=metadata)


def _read_again(server: Crowd, services: list[Any], period_s: float) -> list[Key]:
    """Read until there are enough; return the resources that were reported."""
    notified: list[Key] = []

    async def run() -> None:
        fingerprints = Fingerprints(server, period_s)  # type: ignore[arg-type] # as above
        for service in services:
            await fingerprints.of(service)
        server.changed = "shop-3"
        fingerprints.forget(Key("shop-0", "minimal"))
        reading = asyncio.create_task(fingerprints.run(notified.append))
        async with asyncio.timeout(60):
            await server.done.wait()
        reading.cancel()

    asyncio.run(run())
    return notified


def test_a_resource_is_told_of_a_secret_that_changed_and_one_that_is_gone_costs_nothing(
    make: Any,
) -> None:
    services = [_in(f"shop-{number}", make()) for number in range(5)]
    first = len(services) * len(DATA)
    server = Crowd(3 * first)
    notified = _read_again(server, services, period_s=0.2)
    assert notified == [Key("shop-3", "minimal")] * len(DATA)
    assert not [path for path in server.paths[first:] if "/shop-0/" in path]


def test_many_secrets_are_read_in_turn_and_no_faster_than_a_few(make: Any) -> None:
    """So the period grows with their number, and not how often the API server is asked."""
    services = [_in(f"shop-{number}", make()) for number in range(1, 100)]
    first, period_s = len(services) * len(DATA), 0.4
    server = Crowd(first + 300)
    _read_again(server, services, period_s)
    next_paths, times = server.paths[first:], server.times[first:]
    assert len(set(next_paths)) == len(next_paths)
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > 0.9 * period_s / 200
