"""Carries out a plan: applies and deletes children, even if others change them meanwhile."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import structlog

from orderservice_operator.children.kinds import kind_of
from orderservice_operator.children.manifest import Manifest, Reference, owner_name
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.store import Store
from orderservice_operator.errors import Conflict, NotFound, OperatorError, Permanent
from orderservice_operator.resource.key import Key
from orderservice_operator.state.compare import extras
from orderservice_operator.state.live_objects import LiveObjects
from orderservice_operator.state.ownership import CHILDREN, SCALE, removal
from orderservice_operator.state.plan import Plan, Write

_SCALERS: Final = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
_log = structlog.get_logger(__name__)


class Outcome:
    """The result of a plan: faults for the status, conflicts for events.

    `refused` are Deployments that the API server always rejects.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.conflicts: list[str] = []
        self.refused: list[str] = []
        self.again: OperatorError | None = None

    def fault(self, target: object, error: OperatorError) -> None:
        """Record what could not be written; `again` is the reason for another try."""
        self.faults.append(f"{target}: {error}")
        if not isinstance(error, Permanent):
            self.again = error


class Writer:
    """Writes the children in one cluster; the store gets every answer at once."""

    def __init__(self, client: Client, store: Store) -> None:
        self._client, self._store = client, store

    async def carry_out(
        self, plan: Plan, key: Key, objects: LiveObjects, *, dry_run_first: bool = False
    ) -> Outcome:
        """Write everything that can be written: one fault does not delay the rest.

        Deployments are written last, so that their pods find their settings. Unwanted scalers are
        deleted first, because KEDA refuses to scale what another one scales. `dry_run_first`: their
        pods have parts that only the API server can check, so it is asked first. If it refuses one,
        none is rolled out, and nothing is deleted that the present pods may still name.
        """
        outcome = Outcome()
        scalers = [child for child in plan.deletions if child.kind in _SCALERS]
        for child in scalers:
            await self._delete(child, key, objects, outcome)
        other_writes = [write for write in plan.writes if write.manifest["kind"] != "Deployment"]
        deployment_writes = [
            write for write in plan.writes if write.manifest["kind"] == "Deployment"
        ]
        await self._each(other_writes, key, objects, outcome)
        if dry_run_first and not await self._are_accepted(deployment_writes, key, outcome):
            return outcome
        await self._each(deployment_writes, key, objects, outcome)
        for child in plan.deletions:
            if child not in scalers:
                await self._delete(child, key, objects, outcome)
        return outcome

    async def _are_accepted(self, writes: Iterable[Write], key: Key, outcome: Outcome) -> bool:
        """Ask the API server whether it accepts Deployments; record those that it rejects."""
        accepted = True  # independent of other children
        for write in writes:
            path = _path(write.reference, key)
            try:
                await self._client.apply(path, write.manifest, CHILDREN, dry_run=True)
            except OperatorError as error:
                accepted = False
                outcome.fault(write.reference, error)
                if isinstance(error, Permanent):
                    outcome.refused.append(f"{write.reference}: {error}")
        return accepted

    async def _each(
        self, writes: Iterable[Write], key: Key, objects: LiveObjects, outcome: Outcome
    ) -> None:
        async def one(write: Write) -> None:
            try:
                await self._apply(write, key, objects, outcome)
            except OperatorError as error:
                outcome.fault(write.reference, error)

        await asyncio.gather(*(one(write) for write in writes))

    async def _apply(self, write: Write, key: Key, objects: LiveObjects, outcome: Outcome) -> None:
        path = _path(write.reference, key)
        manifest, old = write.manifest, objects.get(write.reference)
        if old is None:
            await self._refuse_strangers(path, key)
        else:
            # Remove additions first: the API server may refuse our fields beside them. If the
            # removal is refused, it is tried again after the apply.
            await self._remove_additions(path, old)
            if manifest["kind"] == "Deployment" and "replicas" not in manifest["spec"]:
                await self._hand_over(path, old)
        try:
            child = await self._client.apply(path, manifest, CHILDREN, force=False)
        except Conflict as conflict:
            # By contract these fields are ours; other writers get an event.
            outcome.conflicts.append(f"{write.reference}: {conflict}")
            child = await self._client.apply(path, manifest, CHILDREN)
        child = await self._remove_additions(path, child)
        if manifest["kind"] == "Deployment" and (change := extras(manifest, child)):
            child = await self._client.merge(path, change, CHILDREN)
        self._store.wrote(child)
        _log.info("child.applied", key=str(key), child=str(write.reference), path=write.path)

    async def _remove_additions(self, path: str, child: Manifest) -> Manifest:
        """Remove what others added to the spec; return the resulting object.

        An object that changed meanwhile is left alone: its watch event causes the next try.
        """
        if change := removal(child):
            with contextlib.suppress(Conflict, Permanent):
                return await self._client.merge(path, change, CHILDREN)
        return child

    async def _refuse_strangers(self, path: str, key: Key) -> None:
        """Refuse an object of the same name with another owner: it would be deleted with us."""
        try:
            child = await self._client.get(path)
        except NotFound:
            return
        if owner_name(child) != key.name:
            raise Permanent("exists and belongs to another owner: delete or rename it")

    async def _hand_over(self, path: str, deployment: Manifest) -> None:
        """Give `replicas` to the scaler before we release it; otherwise it falls back to 1.

        A 0 is not handed over: an autoscaler scales up from 1, but never from 0. If somebody else
        set it to 0, they own the field and it stays.
        """
        if deployment["spec"].get("replicas") == 0:
            return
        remaining: Manifest = {
            "apiVersion": deployment["apiVersion"],
            "kind": deployment["kind"],
            "metadata": {
                "name": deployment["metadata"]["name"],
                "uid": deployment["metadata"]["uid"],
            },
            "spec": {"replicas": deployment["spec"].get("replicas", 1)},
        }
        # A conflict: another manager owns another number, so it was handed over before.
        with contextlib.suppress(Conflict):
            await self._client.apply(path, remaining, SCALE, force=False)

    async def _delete(
        self, child: Reference, key: Key, objects: LiveObjects, outcome: Outcome
    ) -> None:
        try:
            await self._client.delete(_path(child, key), objects[child]["metadata"]["uid"])
        except OperatorError as error:
            outcome.fault(child, error)
            return
        self._store.deleted(key, child)
        _log.info("child.deleted", key=str(key), child=str(child))


def _path(child: Reference, key: Key) -> str:
    return kind_of(child.api_version, child.kind).path(key.namespace, child.name)
