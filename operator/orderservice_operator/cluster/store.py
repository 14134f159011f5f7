"""A copy of all children in this cluster, by the resource they belong to.

A thousand resources have twenty thousand children: `packed` stores them.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from orderservice_operator.children.manifest import Manifest, Reference, owner_name
from orderservice_operator.cluster.packed import GroupVersionKind, Packer
from orderservice_operator.resource.key import Key
from orderservice_operator.state.ownership import foreign_entries

ChildKey = tuple[Key, Reference]


class _Kept(msgspec.Struct, frozen=True, gc=False):
    version: int
    content: bytes


class Store:
    """The copy; `changed` is called with the resource of every child that changed."""

    def __init__(self, on_change: Callable[[Key], None]) -> None:
        self._changed = on_change
        self._packer = Packer()
        self._children: dict[Key, dict[Reference, _Kept]] = defaultdict(dict)
        # Of each watch: its kind, and its namespace or "" for all.
        self._seen: dict[tuple[GroupVersionKind, str], int] = defaultdict(int)

    def children(self, key: Key) -> dict[Reference, Manifest]:
        """Return the children of a resource."""
        entries = self._children.get(key, {})
        unpack = self._packer.unpack
        return {
            child: unpack((child.api_version, child.kind), entry.content)
            for child, entry in entries.items()
        }

    def take(self, kind: GroupVersionKind, objects: Iterable[Manifest]) -> set[ChildKey]:
        """Store a page of a listing; return the keys of its objects."""
        keys: set[ChildKey] = set()
        for item in objects:
            self._put(item | {"apiVersion": kind[0], "kind": kind[1]})
            keys.add(_child_key(item, kind))
        return keys

    def keep_only(
        self, kind: GroupVersionKind, version: str, listed_keys: set[ChildKey], namespace: str = ""
    ) -> None:
        """Drop objects that a complete list of a kind (in one namespace or all) lacks."""
        self._seen[kind, namespace] = int(version)
        keys_of_kind = [
            (key, child)
            for key, entries in self._children.items()
            for child in entries
            if (child.api_version, child.kind) == kind and namespace in {"", key.namespace}
        ]
        for child_key in keys_of_kind:
            if child_key not in listed_keys:
                self._drop(*child_key)

    def drop_kind(self, kind: GroupVersionKind) -> None:
        """Forget all objects of a kind that the cluster no longer has."""
        for key, children in list(self._children.items()):
            for child in [
                reference
                for reference in children
                if (reference.api_version, reference.kind) == kind
            ]:
                self._drop(key, child)

    def see(self, kind: GroupVersionKind, event: Manifest, namespace: str = "") -> None:
        """Store one event of a watch of one namespace, or of all."""
        item = event["object"]
        self._seen[kind, namespace] = max(self._seen[kind, namespace], _version(item))
        if event["type"] == "DELETED":
            self._drop(*_child_key(item, kind))
        elif event["type"] != "BOOKMARK":
            self._put(item)

    def wrote(self, item: Manifest) -> None:
        """Store the answer to a write, unless the watch has reported a newer version."""
        kind = (item["apiVersion"], item["kind"])
        watches = ("", item["metadata"]["namespace"])
        if _version(item) > max(self._seen[kind, namespace] for namespace in watches):
            self._put(item, quiet=True)

    def deleted(self, key: Key, child: Reference) -> None:
        """Forget a deleted object; if it still exists, the watch adds it again."""
        self._children.get(key, {}).pop(child, None)

    def forget(self, key: Key) -> None:
        """Forget a resource without children."""
        if not self._children.get(key):
            self._children.pop(key, None)

    def _put(self, item: Manifest, *, quiet: bool = False) -> None:
        kind = (item["apiVersion"], item["kind"])
        key, child = _child_key(item, kind)
        version = _version(item)
        old = self._children[key].get(child)
        if old is not None and old.version >= version:
            return
        entries = foreign_entries(item)
        item["metadata"].pop("managedFields", None)
        if entries:
            item["metadata"]["managedFields"] = entries
        self._children[key][child] = _Kept(version, self._packer.pack(kind, item))
        if not quiet:
            self._changed(key)

    def _drop(self, key: Key, child: Reference) -> None:
        if self._children.get(key, {}).pop(child, None) is not None:
            self._changed(key)


def _child_key(item: Manifest, kind: GroupVersionKind) -> ChildKey:
    metadata = item["metadata"]
    owner = owner_name(item)
    api_version, name = map(sys.intern, kind)  # twenty thousand of them, of a dozen kinds
    return Key(metadata["namespace"], owner), Reference(api_version, name, metadata["name"])


def _version(item: Manifest) -> int:
    """Versions may be compared as numbers.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return int(item["metadata"]["resourceVersion"])
