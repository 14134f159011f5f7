"""The last known state of every OrderService, as the watch reports it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orderservice_operator.resource.decoding import Invalid, decode
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService


class ResourceIndex:
    """The last known state of every OrderService.

    `request` is called for each resource whose desired state changed, whether the watch or the
    answer to one of our writes reports it first.
    """

    def __init__(self, request: Callable[[Key], None] = lambda _: None) -> None:
        self._request = request
        self._known: dict[Key, OrderService | Invalid] = {}

    def get(self, key: Key) -> OrderService | Invalid | None:
        """Return a resource, or None when it is gone."""
        return self._known.get(key)

    def known(self) -> list[Key]:
        """Return the keys of all resources, also of unreadable ones."""
        return list(self._known)

    def services(self) -> Iterator[OrderService]:
        """Return all readable resources."""
        return (service for service in self._known.values() if isinstance(service, OrderService))

    def has_dashboards_first(self, service: OrderService) -> bool:
        """Return whether this is the oldest resource that wants the shared dashboards."""
        return not any(
            _age(candidate) < _age(service)
            for candidate in self.services()
            if candidate.spec.observability.dashboards
            and candidate.spec.mode == "Manage"
            and candidate.metadata.deletion_timestamp is None
        )

    def put(self, body: Mapping[str, Any]) -> bool:
        """Store a state; return whether the desired state changed (a new status does not count)."""
        new = decode(body)
        key = Key(new.metadata.namespace, new.metadata.name)
        old = self._known.get(key)
        if old is not None and _version(old) > _version(new):
            return False
        self._known[key] = new
        is_new = old is None or _wish(old) != _wish(new)
        if is_new:
            self._request(key)
        return is_new

    def wrote(self, body: Mapping[str, Any]) -> bool:
        """Store the answer to a write, unless the resource is gone or has been replaced.

        Return whether the desired state changed: a user may have changed it just before, and the
        watch would report that too late to count as new.
        """
        metadata = body["metadata"]
        old = self._known.get(Key(metadata["namespace"], metadata["name"]))
        return old is not None and old.metadata.uid == metadata["uid"] and self.put(body)

    def drop(self, key: Key, uid: str = "") -> None:
        """Remove a deleted resource; with `uid`, only that one."""
        old = self._known.get(key)
        if old is not None and uid in {"", old.metadata.uid}:
            del self._known[key]

    def conditions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield each condition as namespace, name, type, status, reason; of unreadable resources,
        too.
        """
        for service in self._known.values():
            metadata = service.metadata
            for condition in service.status.conditions:
                yield (
                    metadata.namespace,
                    metadata.name,
                    condition.type,
                    condition.status,
                    condition.reason,
                )


def _age(service: OrderService) -> tuple[str, str]:
    return service.metadata.creation_timestamp, service.metadata.uid


def _version(service: OrderService | Invalid) -> int:
    return int(service.metadata.resource_version or 0)


def _wish(service: OrderService | Invalid) -> tuple[object, ...]:
    """Return the parts of a resource whose change needs a reconciliation.

    All annotations are among them: two have a meaning, and any other lets a person request a pass.
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
