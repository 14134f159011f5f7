"""What has to be written to make live objects the desired ones. Pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

from orderservice_operator.children.manifest import (
    APPLIED_ANNOTATION,
    Manifest,
    Reference,
    digest,
    reference,
)
from orderservice_operator.resource.spec import GROUP, KIND
from orderservice_operator.state.compare import first_difference
from orderservice_operator.state.live_objects import LiveObjects
from orderservice_operator.state.ownership import additions

# Cannot be changed once it exists, so it is made and left alone.
_MADE_ONCE: Final = frozenset({"Job"})


class Write(msgspec.Struct, frozen=True):
    """One object to apply, and why: `path` is what differs, empty if all of it is new."""

    manifest: Manifest
    path: str = ""
    repair: bool = False  # the object was once as it should be: somebody changed it

    @property
    def reference(self) -> Reference:
        """What names the object."""
        return reference(self.manifest)


class Plan(msgspec.Struct, frozen=True):
    """The writes and deletions that turn live objects into the desired ones; usually none."""

    writes: tuple[Write, ...] = ()
    deletions: tuple[Reference, ...] = ()

    def __str__(self) -> str:
        writes = [f"{write.reference}{write.path}" for write in self.writes]
        return ", ".join(writes + [f"delete {deletion}" for deletion in self.deletions])


def diff(desired: Iterable[Manifest], live: LiveObjects, *, staying: frozenset[Reference]) -> Plan:
    """Compare; delete undesired objects that we made, except those in `staying`."""
    signed = [with_signature(manifest) for manifest in desired]
    references = {reference(manifest) for manifest in signed}
    writes = (_write(manifest, live.get(reference(manifest))) for manifest in signed)
    return Plan(
        writes=tuple(write for write in writes if write is not None),
        deletions=tuple(
            child
            for child, manifest in live.items()
            if child not in references and child not in staying and _is_ours(manifest)
        ),
    )


def with_signature(manifest: Manifest) -> Manifest:
    """Add the hash of the manifest to its annotations."""
    metadata = manifest["metadata"]
    signature = {APPLIED_ANNOTATION: digest(manifest)}
    annotations = metadata.get("annotations", {}) | signature
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def _write(manifest: Manifest, live: Manifest | None) -> Write | None:
    if live is None:
        return Write(manifest)
    if manifest["kind"] in _MADE_ONCE:
        return None
    path = first_difference(manifest, live) or next(iter(additions(live)), None)
    if path is None:
        return None
    return Write(manifest, path, repair=_signature(manifest) == _signature(live))


def _is_ours(live: Manifest) -> bool:
    """Tell whether we made it: people copy labels, and KEDA does, to its autoscalers.

    Of whichever uid the owner was: a resource that is made anew has the children of the one before.
    """
    owners = live["metadata"].get("ownerReferences") or []
    return any(
        (owner["apiVersion"].partition("/")[0], owner["kind"]) == (GROUP, KIND) for owner in owners
    )


def _signature(manifest: Manifest) -> str | None:
    annotations = manifest["metadata"].get("annotations") or {}
    signature: str | None = annotations.get(APPLIED_ANNOTATION)
    return signature
