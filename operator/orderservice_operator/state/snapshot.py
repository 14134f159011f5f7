"""A resource and its children at one moment, and the state of its roll-out. Pure."""

from collections.abc import Mapping

import msgspec

from orderservice_operator.children import processes
from orderservice_operator.children.context import Context, MetricsApi
from orderservice_operator.children.controller_revision import revision_name
from orderservice_operator.children.migration_job import COMPONENT as MIGRATE
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.state import live_objects, revisions, rollback
from orderservice_operator.state.live_objects import Job, LiveObjects, RolloutProgress
from orderservice_operator.state.revisions import History
from orderservice_operator.state.rollback import RolloutFailure, Running


class Snapshot(msgspec.Struct, frozen=True):
    """A resource (`wanted`: as it is; `running`: with the spec that is to run) and its children.

    `secrets` are the known digests of what each process reads from Secrets. `dashboards`: this
    resource is the oldest, which has the dashboards. `held`: its pods stay as an older operator
    created them until its turn; `revision` is then theirs.
    """

    wanted: OrderService
    running: Running
    live: LiveObjects
    history: History
    kinds: frozenset[str]
    secrets: Mapping[str, str]
    revision: str
    metrics: MetricsApi = MetricsApi()
    dashboards: bool = True
    held: bool = False

    @property
    def service(self) -> OrderService:
        """The resource with the spec that must run."""
        return self.running.service

    @property
    def context(self) -> Context:
        """The context of the children: their inputs besides the resource."""
        predecessor = None if self.done else revisions.before(self.service, self.history)
        workers = live_objects.replicas(
            processes.name_of(self.service, processes.WORKER), self.live
        )
        return Context(
            self.kinds,
            self.migrated,
            self.secrets,
            predecessor,
            self.metrics,
            workers,
            self.dashboards,
        )

    @property
    def migrated(self) -> bool:
        """Whether the schema fits the version to run.

        The status stores it: people delete Jobs, and Jobs expire. It is true for a good revision:
        migrations never remove what the previous version needs.
        """
        if not self.service.spec.migrations.enabled or self.running.rollback:
            return True
        if self.service.status.migration == job_name(self.service):
            return True
        return self.job.complete

    @property
    def job(self) -> Job:
        """The migration of the spec's version."""
        return live_objects.job(job_name(self.wanted), self.live)

    @property
    def job_is_stale(self) -> bool:
        """Whether the migration failed for an earlier spec or Secret, so that a new try makes
        sense.
        """
        secrets = self.secrets.get(MIGRATE, self.job.secrets)
        spec_changed = self.job.generation != self.wanted.metadata.generation
        return bool(self.job.failed) and (spec_changed or self.job.secrets != secrets)

    @property
    def rollouts(self) -> dict[str, RolloutProgress]:
        """The roll-out of each process."""
        return {
            process.name: live_objects.rollout(self.service, process, self.live, self.revision)
            for process in processes.ALL
        }

    @property
    def done(self) -> bool:
        """Whether all pods run the wanted version."""
        return self.migrated and all(rollout.done for rollout in self.rollouts.values())

    @property
    def settled(self) -> bool:
        """Whether all pods run the wanted version and will keep it."""
        return self.done and not self.held

    @property
    def late(self) -> bool:
        """Whether a process missed the deadline of its roll-out."""
        return any(rollout.late for rollout in self.rollouts.values())

    @property
    def is_upgrade(self) -> bool:
        """Whether only a newer operator, not the spec, requires other pods.

        That is: the spec was rolled out already, but now results in different pods.
        """
        service = self.wanted
        status, spec = service.status, service.spec
        if spec.mode != "Manage" or spec.paused or status.rollback or self.running.rollback:
            return False
        is_same = status.revision_generation == service.metadata.generation
        return is_same and status.revision not in {"", self.revision}

    @property
    def has_begun(self) -> bool:
        """Whether a Deployment has the wanted version already."""
        return self.revision in live_objects.revisions(self.service, self.live)

    @property
    def failure(self) -> RolloutFailure | None:
        """The reason why the spec cannot be rolled out, if it is known."""
        if not self.migrated and self.job.failed and not self.job_is_stale:
            return RolloutFailure("MigrationFailed", f"migration: {self.job.failed}")
        problems = (rollout.problem for rollout in self.rollouts.values() if rollout.late)
        return next((RolloutFailure("DeadlineMissed", problem) for problem in problems), None)

    @property
    def no_way_back(self) -> str:
        """A text on why a failed roll-out is not rolled back."""
        return rollback.hindrance(self.wanted, self.history) if self.failure else ""


def take_snapshot(
    service: OrderService, objects: LiveObjects, kinds: frozenset[str], secrets: Mapping[str, str]
) -> Snapshot:
    """Return the snapshot of a resource; `metrics` and further `secrets` are added later."""
    history = revisions.history(objects)
    running = rollback.running(service, history)
    name = revision_name(running.service)
    return Snapshot(service, running, objects, history, kinds, secrets, name)
