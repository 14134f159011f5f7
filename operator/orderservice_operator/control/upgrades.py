"""Turns of resources whose pods a newer operator replaces: a few resources at a time.

A resource keeps its turn until all its pods are replaced and ready. If its new pods never become
ready, it keeps the turn for good: the same would happen to all others, whose pods still run. A
resource whose spec changes does not wait.
"""

from collections.abc import Callable

from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Upgrade
from orderservice_operator.state.snapshot import Snapshot


class Upgrades:
    """Turns of resources, `at_once` at a time; `queue` is called for the next one.

    The status of each resource records whether it has its turn, so a restart grants no new ones.
    """

    def __init__(
        self, resources: ResourceIndex, at_once: int, queue: Callable[[Key], None]
    ) -> None:
        self._resources, self._at_once, self._queue = resources, at_once, queue
        self._under_way: set[Key] = set()
        self._waiting: dict[Key, None] = {}  # in the order of arrival

    def judge(self, key: Key, snapshot: Snapshot) -> Upgrade | None:
        """Return the state of a resource's upgrade, or None without one."""
        if not snapshot.is_upgrade or (snapshot.has_begun and snapshot.done):
            self.forget(key)
            return None
        if not (snapshot.has_begun or self._takes_turn(key)):
            self._waiting[key] = None
            return "Waiting"
        state = _state(snapshot.wanted)
        if state == "UnderWayUnready" and snapshot.late:
            self.forget(key)
        else:
            self._under_way.add(key)
            self._waiting.pop(key, None)
        return state

    def forget(self, key: Key) -> None:
        """Pass the turn of a resource on to the next one."""
        self._under_way.discard(key)
        self._waiting.pop(key, None)
        if self._waiting and len(self._under_way) < self._at_once:
            self._queue(next(iter(self._waiting)))

    def _takes_turn(self, key: Key) -> bool:
        if key in self._under_way:
            return True
        if len(self._under_way) >= self._at_once:
            return False
        return len((self._under_way | self._told()) - {key}) < self._at_once

    def _told(self) -> set[Key]:
        """Return the resources whose status says that they have their turn."""
        return {
            Key(service.metadata.namespace, service.metadata.name)
            for service in self._resources.services()
            if service.status.upgrade == "UnderWay"
        }


def _state(service: OrderService) -> Upgrade:
    """Return the state of a resource in its turn: whether it was ready when the turn began."""
    status = service.status
    if status.upgrade in {"UnderWay", "UnderWayUnready"}:
        return status.upgrade
    is_ready = ("Ready", "True") in {
        (condition.type, condition.status) for condition in status.conditions
    }
    return "UnderWay" if is_ready else "UnderWayUnready"
