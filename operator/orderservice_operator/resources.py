"""The OrderServices as kopf hands them over, decoded once at the door."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from orderservice_operator import rollback
from orderservice_operator.cluster.store import Key
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.spec import Metadata, OrderService
from orderservice_operator.resource.status import Status


class Vanished(OperatorError):
    """Forget the resource: it is gone, though no event has said so."""


class Invalid(msgspec.Struct, frozen=True):
    """A resource that cannot be read: stored before a rule was made, say."""

    metadata: Metadata
    problem: str
    status: Status = Status()


class _Shell(msgspec.Struct, frozen=True):
    metadata: Metadata
    status: Status = Status()


class Resources:
    """The last known state of every OrderService."""

    def __init__(self) -> None:
        self._known: dict[Key, OrderService | Invalid] = {}

    def get(self, key: Key) -> OrderService | Invalid | None:
        """Return a resource, or None when it is gone."""
        return self._known.get(key)

    def known(self) -> list[Key]:
        """Return all."""
        return list(self._known)

    def services(self) -> Iterator[OrderService]:
        """Yield all that can be read."""
        return (one for one in self._known.values() if isinstance(one, OrderService))

    def put(self, body: Mapping[str, Any]) -> bool:
        """Take over a state; tell whether it asks for anything new (a status does not)."""
        new = decode(body)
        key = Key(new.metadata.namespace, new.metadata.name)
        old = self._known.get(key)
        if old is not None and _version(old) > _version(new):
            return False
        self._known[key] = new
        return old is None or _wish(old) != _wish(new)

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
            for one in service.status.conditions:
                yield place.namespace, place.name, one.type, one.status, one.reason


def decode(body: Mapping[str, Any]) -> OrderService | Invalid:
    """Read a resource as the API server hands it over."""
    try:
        return msgspec.convert(body, OrderService)
    except msgspec.ValidationError as error:
        return _invalid(body, str(error))


def _invalid(body: Mapping[str, Any], problem: str) -> Invalid:
    try:
        shell = msgspec.convert(body, _Shell)
    except msgspec.ValidationError:  # the status was another version's to write
        shell = msgspec.convert({"metadata": body["metadata"]}, _Shell)
    return Invalid(shell.metadata, problem, shell.status)


def _version(service: OrderService | Invalid) -> int:
    return int(service.metadata.resource_version or 0)


def _wish(service: OrderService | Invalid) -> tuple[object, ...]:
    metadata = service.metadata
    return (
        metadata.uid,
        metadata.generation,
        metadata.deletion_timestamp,
        metadata.finalizers,
        metadata.annotations.get(rollback.ANNOTATION),
    )
