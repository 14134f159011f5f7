"""Which fields of a child others have written: read from its managedFields. Pure.

The API server records who wrote each field. Fields without a writer are its own defaults or come
from admission webhooks; both stay. So do the fields in `_LET_IN`.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from orderservice_operator.children.manifest import Manifest

CHILDREN: Final = "orderservice-operator"
SCALE: Final = "orderservice-operator-scale"
_OURS: Final = frozenset({CHILDREN, SCALE})
# Others may write these: the number of pods where we do not write it ourselves (an autoscaler, a
# person), and the time of `kubectl rollout restart`.
_LET_IN: Final = re.compile(
    r"^/spec/replicas$|^/spec/template/metadata/annotations/[^/]+/restartedAt$"
)

Fields = dict[str, Any]  # a FieldsV1, or a part of it


def foreign_entries(manifest: Manifest) -> list[Manifest]:
    """Return the stored part of managedFields: for each other manager, its `additions` to the spec.

    Fields that are ours, let in, or of a subresource are left out; so the list is usually empty.
    """
    entries: list[Manifest] = manifest["metadata"].get("managedFields") or []
    if all("additions" in entry for entry in entries):  # reduced already
        return entries
    own_fields: Fields = {}
    for entry in entries:
        if entry["manager"] in _OURS:
            own_fields = _union(own_fields, _spec(entry))
    return [
        {"manager": entry["manager"], "additions": fields}
        for entry in entries
        if entry["manager"] not in _OURS
        and not entry.get("subresource")
        and (fields := _without(_spec(entry), own_fields, "/spec"))
    ]


def additions(manifest: Manifest) -> list[str]:
    """Return the paths that others have added to the spec of a child."""
    entries = foreign_entries(manifest)
    return [path for entry in entries for path in _paths(entry["additions"], "/spec")]


def removal(manifest: Manifest) -> Manifest | None:
    """Return the merge patch that removes the additions of others; None: there are none.

    Lists are replaced as a whole, so the patch holds for this version of the object only.
    """
    clean = without_additions(manifest)
    if clean is manifest:
        return None
    version = {"resourceVersion": manifest["metadata"]["resourceVersion"]}
    return {"metadata": version, "spec": merge_patch(manifest["spec"], clean["spec"])}


def without_additions(manifest: Manifest) -> Manifest:
    """Return a child without what others have added to its spec."""
    if not (entries := foreign_entries(manifest)):
        return manifest
    spec = manifest["spec"]
    for entry in entries:
        spec = _removed(spec, entry["additions"])
    return manifest | {"spec": spec}


def merge_patch(source: Manifest, target: Manifest) -> Manifest:
    """Return the merge patch (RFC 7386) that turns one object into another."""
    patch: Manifest = {name: None for name in source if name not in target}
    for name, value in target.items():
        old = source.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := merge_patch(old, value):
                patch[name] = inner
        elif old != value:
            patch[name] = value
    return patch


def _spec(entry: Manifest) -> Fields:
    fields: Fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    return fields


def _union(first: Fields, second: Fields) -> Fields:
    common = {key: _union(first[key], second[key]) for key in first.keys() & second.keys()}
    return first | second | common


def _without(fields: Fields, own_fields: Fields, path: str) -> Fields:
    """Return the fields that are neither ours nor permitted; `{".": {}}` is a whole field."""
    foreign: Fields = {}
    for key, inner in fields.items():
        inner_path = _path_of(path, key)
        if key == "." or _LET_IN.match(inner_path) or (key in own_fields and not inner):
            continue
        if key not in own_fields and _is_whole(inner, inner_path):
            foreign[key] = {".": {}}
        elif remainder := _without(inner, own_fields.get(key, {}), inner_path):
            foreign[key] = remainder
    return foreign


def _is_whole(fields: Fields, path: str) -> bool:
    """Return whether no field below is permitted."""
    return not any(
        _LET_IN.match(inner_path := _path_of(path, key)) or not _is_whole(inner, inner_path)
        for key, inner in fields.items()
        if key != "."
    )


def _path_of(path: str, key: str) -> str:
    kind, _, name = key.partition(":")
    if kind == "f":
        return f"{path}/{name}"
    if kind == "k":
        return f"{path}/{next(iter(msgspec.json.decode(name).values()))}"
    return f"{path}/{name}"


def _paths(fields: Fields, path: str) -> Iterator[str]:
    for key, inner in fields.items():
        if key == ".":
            yield path
        else:
            yield from _paths(inner, _path_of(path, key))


def _removed(value: Any, fields: Fields) -> Any:
    """Return a value without the fields."""
    for key, inner in fields.items():
        owns_item = "." in inner
        kind, _, field = key.partition(":")
        if kind == "f" and isinstance(value, dict) and field in value:
            members = {name: member for name, member in value.items() if name != field}
            value = members if owns_item else members | {field: _removed(value[field], inner)}
        elif kind in {"k", "v"} and isinstance(value, list):
            identity = msgspec.json.decode(field)
            value = [
                item if not _is_item(item, identity) else _removed(item, inner)
                for item in value
                if not (owns_item and _is_item(item, identity))
            ]
    return value


def _is_item(item: Any, identity: Any) -> bool:
    """Return whether a list's item is the one with this key or value."""
    if isinstance(identity, dict) and isinstance(item, dict):
        return all(item.get(name) == value for name, value in identity.items())
    return bool(item == identity)
