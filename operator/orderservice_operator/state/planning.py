"""The operator's next actions for a resource: its plan, and whether it rolls back. Pure."""

import msgspec

from orderservice_operator.children.desired import desired
from orderservice_operator.children.manifest import Manifest, Reference, reference
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.resource.status import Rollback
from orderservice_operator.state import live_objects, revisions, rollback
from orderservice_operator.state.plan import Plan, diff
from orderservice_operator.state.snapshot import Snapshot


def plan(snapshot: Snapshot, *, to_the_end: bool = False) -> Plan:
    """Return what has to be written now.

    `to_the_end`: what all reconciliations together will have written when the roll-out ends, as a
    preview.
    """
    planned = diff(
        manifests(snapshot, to_the_end=to_the_end),
        snapshot.live,
        staying=_kept(snapshot, to_the_end=to_the_end),
    )
    if to_the_end or not snapshot.held:
        return planned
    writes = (write for write in planned.writes if write.manifest["kind"] != "Deployment")
    return msgspec.structs.replace(planned, writes=tuple(writes))


def manifests(snapshot: Snapshot, *, to_the_end: bool) -> list[Manifest]:
    """Return the children that must exist now, or at the end."""
    service, context = snapshot.service, snapshot.context
    children = desired(service, context)
    if to_the_end:
        jobs = [child for child in children if child["kind"] == "Job"]
        end = msgspec.structs.replace(context, migrated=True, before=None)
        children = [*desired(service, end), *jobs]
    elif snapshot.job_is_stale:  # deleted first: a Job cannot be changed
        children = [child for child in children if reference(child) != _job(snapshot)]
    if to_the_end or snapshot.settled:
        record = revisions.to_record(service, snapshot.history)
        children += [record] if record else []
    return children


def decide_rollback(snapshot: Snapshot) -> Rollback | None:
    """Return why something other than the spec must run from now on, or None."""
    service, failure = snapshot.wanted, snapshot.failure
    active = service.spec.mode == "Manage" and not service.spec.paused
    if snapshot.running.rollback or failure is None or not active:
        return snapshot.running.rollback
    return rollback.decide(service, failure, snapshot.history)


def _kept(snapshot: Snapshot, *, to_the_end: bool) -> frozenset[Reference]:
    """Return the objects that stay although they are not desired."""
    references = revisions.kept(snapshot.history)
    if to_the_end or not snapshot.job_is_stale:
        references |= {_job(snapshot)}
    if not (to_the_end or snapshot.settled):
        # Old pods need it until they are gone.
        references |= live_objects.named_by_pods(snapshot.live)
    return references


def _job(snapshot: Snapshot) -> Reference:
    return Reference("batch/v1", "Job", job_name(snapshot.wanted))
