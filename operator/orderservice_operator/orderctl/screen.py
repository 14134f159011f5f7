"""The one screen of `orderctl status`. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from orderservice_operator.children import controller_revision
from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.orderctl.style import Style
from orderservice_operator.orderctl.view import ResourceView
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import Condition
from orderservice_operator.state import revisions

# Conditions that are good when they are False.
_NEGATIVE: Final = frozenset({"Degraded", "Progressing", "Stalled"})
_PHASES: Final = {"Ready": "green", "Degraded": "red", "RolledBack": "red", "Paused": "yellow"}
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))

Cell = tuple[str, str]  # text, colour (or none)


def screen(view: ResourceView, style: Style, now: datetime) -> str:
    """Return the screen as text."""
    if isinstance(view.service, Invalid):
        return style(f"the resource cannot be read: {view.service.problem}", "red")
    service = view.service
    sections = (
        _head(view, service, style, now),
        _section("CONDITIONS", _conditions(service, now), style),
        _section("PROCESSES", _processes(service), style),
        _section("QUEUES", _queues(service), style),
        _section("REVISIONS", _revisions(view, service), style),
        _section("CHILDREN", _children(view), style),
        _section("EVENTS", _events(view, now), style),
    )
    return "\n\n".join(section for section in sections if section)


def _head(view: ResourceView, service: OrderService, style: Style, now: datetime) -> str:
    metadata, status = service.metadata, service.status
    full_name = style(f"{metadata.namespace}/{metadata.name}", "bold")
    phase = style(status.phase, "bold", _PHASES.get(status.phase, "cyan"))
    lag = metadata.generation - status.observed_generation
    observation = (
        "seen by the operator" if not lag else style("not yet seen by the operator", "yellow")
    )
    lines = [
        f"{full_name}  {phase}  age {_age(view.created, now)}",
        f"image   {service.spec.image}{_running(service)}",
        f"spec    generation {metadata.generation}, {observation}; mode {service.spec.mode}",
    ]
    return "\n".join(lines)


def _running(service: OrderService) -> str:
    image = service.status.image
    if image == service.spec.image:
        return ""
    return f"  (last image of all pods: {image})" if image else "  (not rolled out yet)"


def _conditions(service: OrderService, now: datetime) -> Iterator[Sequence[Cell]]:
    for condition in service.status.conditions:
        mark, colour = _judged(condition)
        yield (
            (mark, colour),
            (condition.type, ""),
            (condition.status, colour),
            (condition.reason, ""),
            (_age(condition.last_transition_time, now), ""),
            (condition.message, ""),
        )


def _judged(condition: Condition) -> Cell:
    if condition.status == "Unknown" or (
        condition.status == "False" and condition.reason == "NotWanted"
    ):
        return "-", "dim"
    if condition.type == "Progressing":
        return ("…", "yellow") if condition.status == "True" else ("✔", "green")
    is_good = (
        (condition.status == "False")
        if condition.type in _NEGATIVE
        else (condition.status == "True")
    )
    return ("✔", "green") if is_good else ("✘", "red")


def _processes(service: OrderService) -> Iterator[Sequence[Cell]]:
    for name in ("api", "relay", "worker", "notifier"):
        count = getattr(service.status, name)
        complete = count.ready == count.desired == count.updated
        ready = (f"{count.ready}/{count.desired} ready", "green" if complete else "yellow")
        yield ((name, ""), ready, (f"{count.updated} of this version", ""))


def _queues(service: OrderService) -> Iterator[Sequence[Cell]]:
    queues = {
        "order-processing": service.status.processing,
        "order-notifications": service.status.notifications,
    }
    for name, queue in queues.items():
        if queue is not None:
            dead_letters = (f"{queue.dead} dead letters", "red" if queue.dead else "dim")
            yield ((name, ""), (f"{queue.messages} messages", ""), dead_letters)


def _revisions(view: ResourceView, service: OrderService) -> Iterator[Sequence[Cell]]:
    """Yield the revisions that can be requested, newest first."""
    for revision in revisions.history(view.children):
        runs = revision.name == service.status.revision
        yield (
            ("→" if runs else "", "green"),
            (str(revision.number), ""),
            (revision.image, ""),
            ("all pods run it" if runs else "", "dim"),
        )


def _children(view: ResourceView) -> Iterator[Sequence[Cell]]:
    for child, body in sorted(
        view.children.items(), key=lambda entry: (entry[0].kind, entry[0].name)
    ):
        if child.kind == controller_revision.KIND:
            continue
        yield ((child.kind, ""), (child.name, ""), _state(child, body))


def _state(child: Reference, body: Manifest) -> Cell:
    """Return the state of a child, if its kind has one."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    if child.kind == "Deployment":
        ready_count, count = status.get("readyReplicas", 0), spec.get("replicas", 1)
        suffix = ", held back" if spec.get("paused") else ""
        return f"{ready_count}/{count} ready{suffix}", "" if ready_count == count else "yellow"
    if child.kind == "Job":
        return _job(status)
    if child.kind == "HorizontalPodAutoscaler":
        return f"{status.get('currentReplicas', 0)} → {status.get('desiredReplicas', 0)} pods", ""
    if child.kind == "PodDisruptionBudget":
        return f"{status.get('disruptionsAllowed', 0)} may be evicted now", ""
    return "", ""


def _job(status: Manifest) -> Cell:
    for condition in status.get("conditions") or []:
        if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
            return condition["type"].lower(), "" if condition["type"] == "Complete" else "red"
    return "running", "yellow"


def _events(view: ResourceView, now: datetime) -> Iterator[Sequence[Cell]]:
    for event in view.events:
        warning = event.get("type") == "Warning"
        at = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
        yield (
            (_age(at, now), "dim"),
            (event.get("type", ""), "yellow" if warning else "dim"),
            (event.get("reason", ""), ""),
            (event.get("message", ""), ""),
        )


def _section(title: str, rows: Iterable[Sequence[Cell]], style: Style) -> str:
    """Return a titled table; columns are as wide as their widest cell, the last is not padded."""
    table = [list(row) for row in rows]
    if not table:
        return ""
    widths = [max(len(row[i][0]) for row in table) for i in range(len(table[0]))]
    lines = [_line(row, widths, style) for row in table]
    return "\n".join([style(title, "bold"), *lines])


def _line(row: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    cells = [
        style(text, *filter(None, (colour,))) + " " * (width - len(text))
        for (text, colour), width in zip(row, widths, strict=True)
    ]
    return ("  " + "  ".join(cells)).rstrip()


def _age(start: str, now: datetime) -> str:
    """Return how long something has lasted, in its largest unit."""
    if not start:
        return ""
    seconds = int((now - datetime.fromisoformat(start).astimezone(UTC)).total_seconds())
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"
