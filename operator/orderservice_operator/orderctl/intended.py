"""The OrderService that `kubectl apply` of a file would make, as the API server answers.

The server fills in defaults and checks every rule, in a dry run that stores nothing.
"""

from typing import Any, Final

import msgspec

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.orderctl.cluster import Cluster
from orderservice_operator.orderctl.difference import LAST_APPLIED
from orderservice_operator.resource.spec import path_of

_KUBECTL: Final = "kubectl"


class Intended(msgspec.Struct, frozen=True):
    """An OrderService before (None if it does not exist) and after the apply."""

    before: Manifest | None
    after: Manifest


async def intended(cluster: Cluster, manifest: Manifest) -> Intended:
    """Return both states. Raises OperatorError when the API server refuses the new one."""
    name = manifest["metadata"]["name"]
    path = path_of(cluster.namespace, name)
    try:
        present: Manifest | None = await cluster.client.get(path)
    except NotFound:
        present = None
    try:
        return Intended(present, await _after(cluster, path, manifest, present))
    except NotFound as error:
        hint = (
            f"{error}; do the namespace and the kind exist (`orderctl crd | kubectl apply -f -`)?"
        )
        raise OperatorError(hint) from error


async def _after(
    cluster: Cluster, path: str, manifest: Manifest, present: Manifest | None
) -> Manifest:
    """Apply in the way of the last apply: on the client's side, or on the server's."""
    annotations = (present or {"metadata": {}})["metadata"].get("annotations") or {}
    if present is not None and LAST_APPLIED in annotations:
        last = last_applied(annotations[LAST_APPLIED])
        metadata = manifest["metadata"]
        members = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        change = removed(last, manifest) | {"metadata": members}
        return await cluster.client.merge(path, change, _KUBECTL, dry_run=True)
    return await cluster.client.apply(path, manifest, field_manager(present), dry_run=True)


def last_applied(text: str) -> Manifest:
    """Return kubectl's annotation of its last apply. Raises OperatorError."""
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OperatorError(
            f"annotation {LAST_APPLIED} cannot be read: {error}; "
            "`kubectl apply set-last-applied --create-annotation` writes it again"
        ) from error


def field_manager(present: Manifest | None) -> str:
    """Return the field manager that applies the resource: kubectl, unless another one did."""
    for entry in (present or {"metadata": {}})["metadata"].get("managedFields") or []:
        fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        if entry.get("operation") == "Apply" and "f:image" in fields:
            return str(entry["manager"])
    return _KUBECTL


def removed(last: Any, manifest: Manifest) -> Manifest:
    """Return `manifest` as a merge patch that also removes what only the last apply had."""
    patch: Manifest = {key: None for key in last if key not in manifest} | manifest
    for key, value in manifest.items():
        if isinstance(value, dict) and isinstance(last.get(key), dict):
            patch[key] = removed(last[key], value)
    return patch
