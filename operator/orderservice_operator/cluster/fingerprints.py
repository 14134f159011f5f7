"""Digests of what pods read from Secrets: their pods are replaced when one changes.

Secrets may be read by name but not be listed or watched, so they are read again once in a while.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
import structlog

from orderservice_operator.children import environment, processes
from orderservice_operator.children.manifest import digest
from orderservice_operator.children.migration_job import COMPONENT as MIGRATE
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService

Entries = Mapping[str, str]
# Of the default period, one in 1.5 s: however many resources there are, the API server is asked
# less than once a second.
_IN_A_PERIOD: Final = 20
_NONE: Final[Entries] = {}
# A Secret that pods wait for is read this often while somebody asks for it.
_LACKING_S: Final = 5.0
_log = structlog.get_logger(__name__)


class Read(msgspec.Struct, frozen=True):
    """Digests of the entries of one Secret, as they were at a moment."""

    at: float
    entries: Entries


class Fingerprints:
    """Reads each Secret when it is first needed, and then one after the other for ever.

    Each is read every `period_s`; more than 20 take as much longer. Nothing but digests is kept.
    """

    def __init__(self, client: Client, period_s: float) -> None:
        self._client, self._period_s = client, period_s
        self._read: dict[Key, Read] = {}  # in the order of reading
        self._uses: dict[Key, frozenset[Key]] = {}

    async def of(self, service: OrderService) -> dict[str, str]:
        """Return a digest for each process, but for those that lack an entry. Raises Transient.

        It is salted with the resource: the same password elsewhere looks different.
        """
        used = _used(service)
        names = sorted({name for entries in used.values() for name, _ in entries})
        namespace = service.metadata.namespace
        secrets = [Key(namespace, name) for name in names]
        self._uses[Key(namespace, service.metadata.name)] = frozenset(secrets)
        keys_of = {
            name: {key for entries in used.values() for n, key in entries if n == name}
            for name in names
        }
        read = await asyncio.gather(
            *(self._known(secret, keys_of[secret.name]) for secret in secrets)
        )
        entries_of = dict(zip(names, read, strict=True))
        return {
            process: digest([service.metadata.uid, [[*e, entries_of[e[0]][e[1]]] for e in entries]])
            for process, entries in used.items()
            if all(key in entries_of[name] for name, key in entries)
        }

    def missing(self, service: OrderService) -> tuple[str, ...]:
        """Return, for people, the entries that pods need and that were not there when last read."""
        namespace = service.metadata.namespace
        needed = {entry for entries in _used(service).values() for entry in entries}
        return tuple(
            f"Secret {name} does not exist" if not read.entries else f"Secret {name} lacks {key}"
            for name, key in sorted(needed)
            if (read := self._read.get(Key(namespace, name))) is not None
            and key not in read.entries
        )

    def forget(self, resource: Key) -> None:
        """Read no more for a resource that is gone."""
        self._uses.pop(resource, None)

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Read again for ever; `changed` is told of resources that use what changed."""
        while True:
            await asyncio.sleep(self._period_s / _IN_A_PERIOD)
            for resource in await self._renewed():
                changed(resource)

    async def _renewed(self) -> Collection[Key]:
        """Read what was read longest ago, if it is due; return the resources it changed for."""
        secret = next(iter(self._read), None)
        if secret is None or time.monotonic() - self._read[secret].at < self._period_s:
            return ()
        users = [resource for resource, used in self._uses.items() if secret in used]
        if not users:
            del self._read[secret]
            return ()
        after = before = self._read[secret].entries  # stands meanwhile: nobody reads it beside us
        try:
            after = await self._fetched(secret)
        except OperatorError as error:  # its turn comes again; the others' come first
            _log.warning("secret.unread", secret=str(secret), error=str(error))
        del self._read[secret]  # to the end of the turn
        self._read[secret] = Read(time.monotonic(), after)
        return users if after != before else ()

    async def _known(self, secret: Key, keys: Collection[str]) -> Entries:
        """Return the entries; one that lacks a key is read again soon."""
        if (read := self._read.get(secret)) is not None:
            lacking = any(key not in read.entries for key in keys)
            if not lacking or time.monotonic() - read.at < _LACKING_S:
                return read.entries
        entries = await self._fetched(secret)
        self._read[secret] = Read(time.monotonic(), entries)
        return entries

    async def _fetched(self, secret: Key) -> Entries:
        path = f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}"
        try:
            body = await self._client.get(path)
        except NotFound:
            return _NONE
        return {key: digest(value) for key, value in (body.get("data") or {}).items()}


def _used(service: OrderService) -> dict[str, list[tuple[str, str]]]:
    """Return the Secrets and entries that each process and the migration read."""
    used = {
        process.name: sorted(environment.secret_entries(service, process))
        for process in processes.ALL
    }
    return used | {MIGRATE: sorted(environment.migration_entries(service))}
