"""What is known of a resource at one moment, and what follows from it. Pure."""

from collections.abc import Mapping

import msgspec

from orderservice_operator import observed, revisions, rollback
from orderservice_operator.children import processes
from orderservice_operator.children.controller_revision import revision_name
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.desired import desired
from orderservice_operator.facts import Facts, MetricsApi
from orderservice_operator.manifest import Reference, reference
from orderservice_operator.observed import Job, Rollout
from orderservice_operator.plan import Live, Plan, plan
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Rollback
from orderservice_operator.revisions import History
from orderservice_operator.rollback import Failure, Running


class Look(msgspec.Struct, frozen=True):
    """A resource (`wanted` as it is, `running` as it is to be) and its live children.

    `secrets` are digests of what each process reads from Secrets, where they are known.
    """

    wanted: OrderService
    running: Running
    live: Live
    history: History
    kinds: frozenset[str]
    secrets: Mapping[str, str]
    revision: str
    metrics: MetricsApi = MetricsApi()

    @property
    def service(self) -> OrderService:
        """The resource with the spec that is to run."""
        return self.running.service

    @property
    def facts(self) -> Facts:
        """What the children are decided by, beside the resource."""
        before = None if self.done else revisions.before(self.service, self.history)
        workers = observed.replicas(processes.name_of(self.service, processes.WORKER), self.live)
        return Facts(self.kinds, self.migrated, self.secrets, before, self.metrics, workers)

    @property
    def migrated(self) -> bool:
        """Whether the schema fits what is to run.

        The status remembers it: Jobs are deleted by people and by time. For what was good before it
        is true: migrations never take away what the version before needs.
        """
        if not self.service.spec.migrations.enabled or self.running.rollback:
            return True
        if self.service.status.migration == job_name(self.service):
            return True
        return self.job.complete

    @property
    def job(self) -> Job:
        """The migration of what the spec wants."""
        return observed.job(job_name(self.wanted), self.live)

    @property
    def job_is_stale(self) -> bool:
        """Whether the migration failed for an earlier spec: the new one is worth another try."""
        return bool(self.job.failed) and self.job.generation != self.wanted.metadata.generation

    @property
    def rollouts(self) -> dict[str, Rollout]:
        """How far each process is."""
        return {
            process.name: observed.rollout(self.service, process, self.live, self.revision)
            for process in processes.ALL
        }

    @property
    def done(self) -> bool:
        """Whether all pods are what is to run."""
        return self.migrated and all(rollout.done for rollout in self.rollouts.values())

    @property
    def failure(self) -> Failure | None:
        """Why what the spec wants cannot be rolled out, if that is known by now."""
        if not self.migrated and self.job.failed and not self.job_is_stale:
            return Failure("MigrationFailed", f"migration: {self.job.failed}")
        late = (one.problem for one in self.rollouts.values() if one.late)
        return next((Failure("DeadlineMissed", problem) for problem in late), None)

    @property
    def no_way_back(self) -> str:
        """Why a failed roll-out is not gone back from, for people."""
        return rollback.hindrance(self.wanted, self.history) if self.failure else ""


def look(
    service: OrderService, live: Live, kinds: frozenset[str], secrets: Mapping[str, str]
) -> Look:
    """Look at a resource."""
    history = revisions.history(live)
    running = rollback.running(service, history)
    name = revision_name(running.service)
    return Look(service, running, live, history, kinds, secrets, name)


def planned(look: Look) -> Plan:
    """Return what has to be written."""
    made = desired(look.service, look.facts)
    job = Reference("batch/v1", "Job", job_name(look.wanted))
    kept = revisions.kept(look.history) | ({job} if not look.job_is_stale else set())
    if look.done:
        record = revisions.to_record(look.service, look.history)
        made += [record] if record else []
    else:
        kept |= observed.settings(look.live)  # old pods may be restarted until they are gone
    if look.job_is_stale:
        made = [one for one in made if reference(one) != job]
    return plan(made, look.live, kept=frozenset(kept))


def decided(look: Look) -> Rollback | None:
    """Return why something else than the spec is to run from now on, or None."""
    service, failure = look.wanted, look.failure
    active = service.spec.mode == "Manage" and not service.spec.paused
    if look.running.rollback or failure is None or not active:
        return look.running.rollback
    return rollback.decide(service, failure, look.history)
