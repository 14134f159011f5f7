"""The good revisions of a resource, newest first: read from its ControllerRevisions. Pure."""

from typing import Final

import msgspec

from orderservice_operator.children.controller_revision import (
    API_VERSION,
    KIND,
    controller_revision,
    revision_name,
    with_spec_of,
)
from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.state.live_objects import LiveObjects

LIMIT: Final = 10  # as many as a Deployment keeps of its own


class Revision(msgspec.Struct, frozen=True):
    """A good revision; the highest number is the latest."""

    name: str
    number: int
    data: Manifest

    @property
    def image(self) -> str:
        """The image that the revision runs."""
        return str(self.data["spec"]["image"])


History = tuple[Revision, ...]


def revision(manifest: Manifest) -> Revision:
    """Return the content of a ControllerRevision."""
    return Revision(manifest["metadata"]["name"], manifest["revision"], manifest["data"])


def history(objects: LiveObjects) -> History:
    """Return all revisions, newest first."""
    revisions = [revision(body) for child, body in objects.items() if child.kind == KIND]
    return tuple(sorted(revisions, key=lambda body: body.number, reverse=True))


def find(history: History, name: str) -> Revision | None:
    """Return the revision of that name."""
    return next((revision for revision in history if revision.name == name), None)


def standing_in(service: OrderService, revision: Revision) -> OrderService | None:
    """Return the resource with the spec of a revision, or None if it cannot be read."""
    try:
        return with_spec_of(service, revision.data)
    except (msgspec.ValidationError, KeyError, TypeError):
        return None


def before(service: OrderService, history: History) -> OrderService | None:
    """Return the resource with the last good spec, if it differs from the one to run."""
    if not history or history[0].name == revision_name(service):
        return None
    return standing_in(service, history[0])


def to_record(service: OrderService, history: History) -> Manifest | None:
    """Return the revision to store now that `service` is known to be good, or None.

    A revision that was good before keeps its data under a new number: the data of a
    ControllerRevision cannot be changed.
    """
    name = revision_name(service)
    if history and history[0].name == name:
        return None
    record = controller_revision(service, history[0].number + 1 if history else 1)
    recorded = find(history, name)
    return record if recorded is None else record | {"data": recorded.data}


def kept(history: History) -> frozenset[Reference]:
    """Return the revisions that are recent enough to keep."""
    return frozenset(Reference(API_VERSION, KIND, revision.name) for revision in history[:LIMIT])
