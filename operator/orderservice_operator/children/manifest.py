"""Manifests for the API server, and what all of them share."""

import hashlib
from typing import Any, Final

import msgspec

from orderservice_operator.resource.spec import GROUP, KIND, VERSION, OrderService

Manifest = dict[str, Any]

OWNER_LABEL: Final = f"{GROUP}/orderservice"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
# Hash of the last applied manifest, to detect fields that are no longer wanted.
APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
# Revision of a Deployment.
REVISION_ANNOTATION: Final = f"{GROUP}/revision"
# Digest of the Secrets that a pod reads: if it changes, the pods are replaced.
SECRETS_ANNOTATION: Final = f"{GROUP}/secrets"
# Generation of the resource that a Job was created for.
GENERATION_ANNOTATION: Final = f"{GROUP}/generation"
_DIGEST_CHARACTERS: Final = 10


class Reference(msgspec.Struct, frozen=True, gc=False):
    """Names one child of a resource: unique in the resource's namespace."""

    api_version: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def reference(manifest: Manifest) -> Reference:
    """Return the reference of an object."""
    return Reference(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def digest(value: object) -> str:
    """Return a short hash of a value; the order of members does not matter."""
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]


def selector(service: OrderService, component: str | None = None) -> dict[str, str]:
    """Return the labels that select the pods of the service, or of one of its components."""
    of_service = {OWNER_LABEL: service.metadata.name}
    return of_service | ({COMPONENT_LABEL: component} if component else {})


def labels(service: OrderService, component: str | None = None) -> dict[str, str]:
    """Return the labels of a child."""
    return selector(service, component) | {
        "app.kubernetes.io/name": "orderservice",
        "app.kubernetes.io/instance": service.metadata.name,
        "app.kubernetes.io/part-of": "orderservice",
        "app.kubernetes.io/managed-by": "orderservice-operator",
    }


def child(
    service: OrderService,
    api_version: str,
    kind: str,
    *,
    name: str,
    component: str | None = None,
) -> Manifest:
    """Return the start of a child: names, labels and owner; the caller adds the rest."""
    metadata: Manifest = {
        "name": name,
        "namespace": service.metadata.namespace,
        "labels": labels(service, component),
        "ownerReferences": [owner_reference(service)],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def inherited(service: OrderService, manifest: Manifest) -> Manifest:
    """Return a child with the labels and annotations that all children have; its own win."""
    extra, metadata = service.spec.inherited_metadata, manifest["metadata"]
    if not (extra.labels or extra.annotations):
        return manifest
    members = {
        "labels": extra.labels | metadata.get("labels", {}),
        "annotations": extra.annotations | metadata.get("annotations", {}),
    }
    return manifest | {"metadata": metadata | members}


def owner_name(manifest: Manifest) -> str:
    """Return the name of the OrderService that an object belongs to, or an empty text.

    Its owner reference counts. The label counts only without one, because people edit labels.
    """
    metadata = manifest["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if (owner["apiVersion"].partition("/")[0], owner["kind"]) == (GROUP, KIND):
            return str(owner["name"])
    return str((metadata.get("labels") or {}).get(OWNER_LABEL, ""))


def owner_reference(service: OrderService) -> Manifest:
    """Return the reference by which the garbage collector deletes children with their owner."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": service.metadata.name,
        "uid": service.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
