"""The writes that turn live objects into the desired ones. Pure."""

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

# It cannot be changed, so it is created and left alone.
_MADE_ONCE: Final = frozenset({"Job"})


class Write(msgspec.Struct, frozen=True):
    """One object to apply, and why: `path` is the difference; empty: the object is new."""

    manifest: Manifest
    path: str = ""
    repair: bool = False  # the object was correct before, and was changed

    @property
    def reference(self) -> Reference:
        """The kind, namespace and name of the object."""
        return reference(self.manifest)


class Plan(msgspec.Struct, frozen=True):
    """The writes and deletions that turn live objects into the desired ones; usually none."""

    writes: tuple[Write, ...] = ()
    deletions: tuple[Reference, ...] = ()

    def __str__(self) -> str:
        writes = [f"{write.reference}{write.path}" for write in self.writes]
        return ", ".join(writes + [f"delete {deletion}" for deletion in self.deletions])


def diff(desired: Iterable[Manifest], live: LiveObjects, *, staying: frozenset[Reference]) -> Plan:
    """Compare; delete undesired objects that we created, except those in `staying`."""
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
    """Return whether we created it: people copy labels, and KEDA copies them to its autoscalers.

    The owner's uid does not matter: a recreated resource has the children of the previous one.
    """
    owners = live["metadata"].get("ownerReferences") or []
    return any(
        (owner["apiVersion"].partition("/")[0], owner["kind"]) == (GROUP, KIND) for owner in owners
    )


def _signature(manifest: Manifest) -> str | None:
    annotations = manifest["metadata"].get("annotations") or {}
    signature: str | None = annotations.get(APPLIED_ANNOTATION)
    return signature
