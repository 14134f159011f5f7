"""The last known state of every OrderService, as the watch reports it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orderservice_operator.resource.decoding import Invalid, decode
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService


class ResourceIndex:
    """The last known state of every OrderService.

    `request` is called for each resource that asks for anything new, whether the watch or the
    answer to a write of ours is the first to say so.
    """

    def __init__(self, request: Callable[[Key], None] = lambda _: None) -> None:
        self._asked = request
        self._known: dict[Key, OrderService | Invalid] = {}

    def get(self, key: Key) -> OrderService | Invalid | None:
        """Return a resource, or None when it is gone."""
        return self._known.get(key)

    def known(self) -> list[Key]:
        """Return the keys of all resources, also of unreadable ones."""
        return list(self._known)

    def services(self) -> Iterator[OrderService]:
        """Return all that can be read."""
        return (service for service in self._known.values() if isinstance(service, OrderService))

    def has_dashboards_first(self, service: OrderService) -> bool:
        """Tell whether no older resource makes the dashboards, which are the same for all."""
        return not any(
            _age(other) < _age(service)
            for other in self.services()
            if other.spec.observability.dashboards
            and other.spec.mode == "Manage"
            and other.metadata.deletion_timestamp is None
        )

    def put(self, body: Mapping[str, Any]) -> bool:
        """Take over a state; tell whether it asks for anything new (a status does not)."""
        new = decode(body)
        key = Key(new.metadata.namespace, new.metadata.name)
        old = self._known.get(key)
        if old is not None and _version(old) > _version(new):
            return False
        self._known[key] = new
        is_new = old is None or _wish(old) != _wish(new)
        if is_new:
            self._asked(key)
        return is_new

    def wrote(self, body: Mapping[str, Any]) -> bool:
        """Take over the answer to a write, unless the resource is gone or another by now.

        Tell whether it asks for anything new: somebody else may have changed it just before, and
        what the watch says of that comes too late to be new.
        """
        metadata = body["metadata"]
        old = self._known.get(Key(metadata["namespace"], metadata["name"]))
        return old is not None and old.metadata.uid == metadata["uid"] and self.put(body)

    def drop(self, key: Key, uid: str = "") -> None:
        """Forget a resource that is gone (that one, if `uid` is given)."""
        old = self._known.get(key)
        if old is not None and uid in {"", old.metadata.uid}:
            del self._known[key]

    def conditions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield every condition: namespace, name, type, status, reason; of unreadable ones, too."""
        for service in self._known.values():
            place = service.metadata
            for condition in service.status.conditions:
                yield (
                    place.namespace,
                    place.name,
                    condition.type,
                    condition.status,
                    condition.reason,
                )


def _age(service: OrderService) -> tuple[str, str]:
    return service.metadata.creation_timestamp, service.metadata.uid


def _version(service: OrderService | Invalid) -> int:
    return int(service.metadata.resource_version or 0)


def _wish(service: OrderService | Invalid) -> tuple[object, ...]:
    """Return what is worth a look when it changes.

    All annotations are: two of them are read, and by any other a person asks for a look.
    """
    metadata = service.metadata
    return (
        metadata.uid,
        metadata.generation,
        metadata.deletion_timestamp,
        metadata.finalizers,
        metadata.annotations,
        service.status.contender,
    )
