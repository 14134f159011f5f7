"""When a good revision runs instead of the spec. Pure.

There are two reasons. The spec's own roll-out or migration failed; then the operator says so in
`status.rollback`, and stays with it. Or a user requested it, by an annotation on the resource:

    orders.platform.dev/rollback: <name of a ControllerRevision>@<generation of the resource>

Both apply to one spec, and end when the spec changes. Pausing and scaling are not changes in this
sense. The operator writes neither the annotation nor the spec, so that tools that apply them
(GitOps) see no difference. If the annotation is removed, the spec is tried again. Possible
revisions are the ControllerRevisions with the label `orders.platform.dev/orderservice=<name>`;
`revisions.revision` reads one.
"""

import re
from typing import Final, Literal

import msgspec

from orderservice_operator.children.controller_revision import attempt, revision_name
from orderservice_operator.resource.annotations import ROLLBACK_ANNOTATION
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Rollback
from orderservice_operator.state import revisions
from orderservice_operator.state.revisions import History

_LONGEST: Final = 1024  # characters of a message
_REQUEST: Final = re.compile(r"^(?P<revision>[-.a-z0-9]+)@(?P<generation>[0-9]{1,18})$")

Reason = Literal["DeadlineMissed", "MigrationFailed", "Requested"]


class Running(msgspec.Struct, frozen=True):
    """The resource to run: unchanged, or with the spec of a revision and the reason.

    `problem` is a text on why a roll-back is impossible.
    """

    service: OrderService
    rollback: Rollback | None = None
    problem: str = ""


class RolloutFailure(msgspec.Struct, frozen=True):
    """The reason why the spec cannot be rolled out."""

    reason: Reason
    message: str


def request(revision: str, generation: int) -> str:
    """Return the annotation's value that asks for a revision instead of a generation."""
    return f"{revision}@{generation}"


def running(service: OrderService, history: History) -> Running:
    """Return the resource to run now; a request has priority over the operator's decision."""
    answer = _running(service, history)
    problem = _malformed(service)
    return msgspec.structs.replace(answer, problem=problem) if problem else answer


def _running(service: OrderService, history: History) -> Running:
    decided = service.status.rollback if _still_holds(service) else None
    if (requested := _asked(service, decided)) is not None:
        return _instead(service, history, requested, "Requested", "requested by annotation")
    if decided is None or decided.reason == "Requested":  # the request was withdrawn
        return Running(service)
    return _instead(service, history, decided.revision, decided.reason, decided.message)


def decide(service: OrderService, failure: RolloutFailure, history: History) -> Rollback | None:
    """Return the revision to roll back to from a spec that fails, or None."""
    if hindrance(service, history):
        return None
    return _instead(
        service, history, history[0].name, failure.reason, failure.message[:_LONGEST]
    ).rollback


def hindrance(service: OrderService, history: History) -> str:
    """Return a text on why a roll-back is impossible; empty: it is possible."""
    if not service.spec.rollout.auto_rollback:
        return "rollout.autoRollback is off"
    if not history:
        return "there is no good revision"
    good_service = revisions.standing_in(service, history[0])
    if good_service is not None and revision_name(good_service) == revision_name(service):
        return "the last good revision has the same spec"
    return ""


def _still_holds(service: OrderService) -> bool:
    """Return whether the spec is the one that `status.rollback` is about."""
    decided = service.status.rollback
    if decided is None:
        return False
    if decided.generation == service.metadata.generation:
        return True
    enabled = service.spec.rollout.auto_rollback or decided.reason == "Requested"
    return enabled and decided.attempt == attempt(service)


def _malformed(service: OrderService) -> str:
    """Return the fault of an unreadable request; empty: none."""
    text = service.metadata.annotations.get(ROLLBACK_ANNOTATION, "")
    if not text or _REQUEST.match(text):
        return ""
    return (
        f"annotation {ROLLBACK_ANNOTATION}: {text[:_LONGEST]!r} is not <ControllerRevision>"
        f"@<generation>, for example {request(f'{service.metadata.name}-0123456789', 7)}"
    )


def _asked(service: OrderService, decided: Rollback | None) -> str | None:
    match = _REQUEST.match(service.metadata.annotations.get(ROLLBACK_ANNOTATION, ""))
    if match is None:
        return None
    is_kept = decided is not None and (
        (decided.reason, decided.revision) == ("Requested", match["revision"])
    )
    if int(match["generation"]) == service.metadata.generation or is_kept:
        return match["revision"]
    return None


def _instead(
    service: OrderService, history: History, name: str, reason: Reason, message: str
) -> Running:
    revision = revisions.find(history, name)
    substitute = revisions.standing_in(service, revision) if revision else None
    if revision is None or substitute is None:
        names = ", ".join(entry.name for entry in history) or "none"
        problem = f"cannot roll back to revision {name}: known revisions are {names}"
        return Running(service, problem=problem)
    rollback = Rollback(
        generation=service.metadata.generation,
        image=service.spec.image,
        revision=name,
        revision_image=revision.image,
        reason=reason,
        message=message,
        attempt=attempt(service),
    )
    return Running(substitute, rollback)
