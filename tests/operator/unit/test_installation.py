"""Which of two installations works on a resource, and when the other one may."""

import asyncio
from typing import Any

import msgspec
import pytest

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.lease import SCOPE_ANNOTATION
from orderservice_operator.control.installation import DEAD_AFTER_S, Installation
from orderservice_operator.errors import Forbidden, NotFound
from orderservice_operator.resource.status import Status

OURS, THEIRS = "platform/ours", "platform/theirs"


class Server:
    """The part of a client that is used: it has one Lease, of THEIRS."""

    def __init__(self, scope: str = "") -> None:
        self.lease: Manifest | None = {
            "metadata": {"annotations": {SCOPE_ANNOTATION: scope}},
            "spec": {"holderIdentity": "pod", "renewTime": "1"},
        }
        self.fault: Exception | None = None
        self.requests = 0

    async def get(self, path: str) -> Manifest:
        self.requests += 1
        assert path == "/apis/coordination.k8s.io/v1/namespaces/platform/leases/theirs"
        if self.fault:
            raise self.fault
        if self.lease is None:
            raise NotFound(path)
        return self.lease


class World:
    """An installation with a clock that the test sets."""

    def __init__(self, server: Server, name: str = OURS) -> None:
        self.now_s = 0.0
        self.server = server
        client: Any = server
        self.installation = Installation(client, name, lambda: self.now_s)

    def other(self, service: Any) -> str:
        return asyncio.run(self.installation.other(service))


def _marked(service: Any, operator: str = THEIRS, contender: str = "") -> Any:
    return msgspec.structs.replace(service, status=Status(operator=operator, contender=contender))


@pytest.mark.parametrize("operator", ["", OURS])
def test_what_is_ours_or_nobodys_is_worked_on_without_a_question(make: Any, operator: str) -> None:
    world = World(Server())
    assert world.other(_marked(make(), operator)) == ""
    assert world.server.requests == 0


@pytest.mark.parametrize("name", [OURS, ""])
def test_what_another_has_marked_is_left_to_it_while_it_renews_its_lease(
    make: Any, name: str
) -> None:
    world = World(Server(), name)
    for number in range(10):
        assert world.server.lease
        world.server.lease["spec"]["renewTime"] = str(number)
        world.now_s += DEAD_AFTER_S / 3
        assert world.other(_marked(make())) == THEIRS


def test_a_lease_that_is_not_renewed_is_waited_for_as_an_upgrade_takes_and_then_taken_over(
    make: Any,
) -> None:
    world = World(Server())
    assert world.other(_marked(make())) == THEIRS
    world.now_s = DEAD_AFTER_S - 1
    assert world.other(_marked(make())) == THEIRS
    world.now_s = DEAD_AFTER_S + 20
    assert world.other(_marked(make())) == ""


def test_one_that_was_uninstalled_is_taken_over_at_once(make: Any) -> None:
    world = World(Server())
    world.server.lease = None
    assert world.other(_marked(make())) == ""


@pytest.mark.parametrize(
    ("scope", "other"), [("", THEIRS), ("a,shop", THEIRS), ("a,b", ""), ("shop-b", "")]
)
def test_a_namespace_that_left_the_others_scope_is_taken_over(
    make: Any, scope: str, other: str
) -> None:
    assert World(Server(scope)).other(_marked(make())) == other


def test_one_whose_lease_may_not_be_read_is_taken_for_alive(make: Any) -> None:
    world = World(Server())
    world.server.fault = Forbidden("no")
    for _ in range(3):
        assert world.other(_marked(make())) == THEIRS
        world.now_s += DEAD_AFTER_S * 2


def test_a_lease_is_read_once_for_many_resources(make: Any) -> None:
    world = World(Server())
    for _ in range(100):
        world.other(_marked(make()))
    assert world.server.requests == 1


@pytest.mark.parametrize(
    ("contender", "is_contended"), [("", False), (OURS, False), (THEIRS, True)]
)
def test_a_resource_is_contended_while_the_one_that_gave_way_lives(
    make: Any, contender: str, *, is_contended: bool
) -> None:
    world, service = World(Server()), _marked(make(), OURS, contender=contender)
    assert asyncio.run(world.installation.is_contended(service)) is is_contended
