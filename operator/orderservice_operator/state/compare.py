"""Comparison of a live object with a manifest. Pure; it ignores members that the server adds."""

from typing import Any, Final

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.resource.quantity import amount

# Members by which the API server merges lists: others may have added items of their own. Any other
# list, and these maps, are one value to it.
_KEYS: Final = ("name", "topologyKey")
_WHOLE: Final = frozenset({"selector", "matchLabels", "podSelector", "nodeSelector"})
# Rules of a NetworkPolicy: any addition lets more through, and the server adds nothing.
_EXACT: Final = frozenset({"ingress", "egress"})
# Lists of a pod template that only we write: injectors change pods, not templates.
_CLOSED: Final = frozenset({"containers", "initContainers", "env"})
# The server omits empty values: to it they are the same.
_NOTHING: Final[tuple[object, ...]] = (None, "", {}, [])
# It also omits false and 0, except for these, where absent may mean true.
_POINTERS: Final = frozenset(
    {
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "maxUnavailable",
        "readOnlyRootFilesystem",
        "replicas",
        "runAsNonRoot",
        "suspend",
    }
)
_UNSET: Final = object()


def first_difference(desired: Any, live: Any, path: str = "") -> str | None:
    """Return the path of the first member of `desired` that `live` does not have, or None."""
    if isinstance(desired, dict) and isinstance(live, dict):
        return _in_object(desired, live, path)
    if isinstance(desired, list) and isinstance(live, list):
        return _in_list(desired, live, path)
    return None if _same(desired, live) else path or "/"


def extras(desired: Manifest, live: Manifest) -> Manifest | None:
    """Return the merge patch that removes what others added to a Deployment's pod template.

    An apply would leave the items of others. None: there is nothing to remove.
    """
    desired_spec, live_spec = desired["spec"]["template"]["spec"], live["spec"]["template"]["spec"]
    live_lists = {name: live_spec.get(name, []) for name in ("containers", "initContainers")}
    desired_lists = {
        name: _desired_only(desired_spec.get(name, []), items) for name, items in live_lists.items()
    }
    if desired_lists == live_lists:
        return None
    # Lists are replaced as a whole, so the patch holds for this version only.
    version = {"resourceVersion": live["metadata"]["resourceVersion"]}
    return {"metadata": version, "spec": {"template": {"spec": desired_lists}}}


def _desired_only(desired: list[Manifest], live: list[Manifest]) -> list[Manifest]:
    """Return live containers or variables that are desired, containers with their variables."""
    desired_by_name = {item["name"]: item for item in desired}
    return [
        item | {"env": _desired_only(desired_by_name[item["name"]].get("env", []), item["env"])}
        if "env" in item
        else item
        for item in live
        if item["name"] in desired_by_name
    ]


def _in_object(desired: Manifest, live: Manifest, path: str) -> str | None:
    if "containers" in desired:
        desired = {"initContainers": []} | desired
    for name, value in desired.items():
        actual = live.get(name, _UNSET)
        if actual is _UNSET and (value in _NOTHING or (name not in _POINTERS and not value)):
            continue
        if _has_more(name, value, actual):
            return f"{path}/{name}"
        if (difference := first_difference(value, actual, f"{path}/{name}")) is not None:
            return difference
    return None


def _has_more(name: str, desired: Any, live: Any) -> bool:
    """Return whether another writer added to a list that only we write."""
    if name in _WHOLE and isinstance(live, dict):
        return bool(live.keys() != desired.keys())
    if name in _EXACT:
        return bool(live != desired)
    return name in _CLOSED and isinstance(live, list) and len(live) > len(desired)


def _in_list(desired: list[Any], live: list[Any], path: str) -> str | None:
    key = next((key for key in _KEYS if _tells_apart(key, desired)), None)
    if key is None and len(desired) != len(live):
        return path
    for index, value in enumerate(desired):
        actual = live[index] if key is None else _twin(value, live, key)
        if (difference := first_difference(value, actual, f"{path}/{index}")) is not None:
            return difference
    return None


def _tells_apart(key: str, items: list[Any]) -> bool:
    """Return whether the member is unique here: KEDA's references may name a Secret twice."""
    if not all(isinstance(item, dict) and key in item for item in items):
        return False
    return len({item[key] for item in items}) == len(items)


def _twin(value: Manifest, live: list[Any], key: str) -> Any:
    matches = (item for item in live if isinstance(item, dict) and item.get(key) == value[key])
    return next(matches, _UNSET)


def _same(desired: Any, live: Any) -> bool:
    if desired == live:
        return True
    if isinstance(desired, str | int | float) and isinstance(live, str):
        size = amount(str(desired))
        return size is not None and size == amount(live)
    return False
