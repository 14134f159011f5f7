"""An object to be written, and its difference as a unified diff of YAML."""

import copy
import difflib
from typing import Any, Final, Literal

import msgspec
import yaml

from orderservice_operator.children.manifest import APPLIED_ANNOTATION, Manifest
from orderservice_operator.orderctl.style import Style

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Bookkeeping of the API server and the operator.
_METADATA: Final = (
    "creationTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_ANNOTATIONS: Final = (APPLIED_ANNOTATION, LAST_APPLIED)
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}
Action = Literal["create", "change", "delete"]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """A write that would happen: `diff` is a unified diff of YAML, `refused` why it would fail."""

    action: Action
    kind: str
    name: str
    diff: list[str] = []
    refused: str = ""


def difference(source: Manifest | None, target: Manifest | None) -> list[str]:
    """Return the lines of a unified diff; none if only details for machines differ."""
    lines = difflib.unified_diff(_lines(source), _lines(target), lineterm="", n=2)
    return list(lines)[2:]  # the two names of files say nothing here


def coloured(lines: list[str], style: Style) -> str:
    """Return the lines as text, each coloured by its first character."""
    return "\n".join(style(line, *_colour(line.lstrip())) for line in lines)


def _colour(line: str) -> tuple[str, ...]:
    colour = _COLOURS.get(line[:1])
    return (colour,) if colour else ()


def _lines(manifest: Manifest | None) -> list[str]:
    if manifest is None:
        return []
    return yaml.safe_dump(_essence(manifest), sort_keys=True, width=1000).splitlines()


def _essence(manifest: Manifest) -> Manifest:
    reduced: Manifest = {key: value for key, value in manifest.items() if key != "status"}
    if "metadata" not in reduced:
        return reduced
    metadata: dict[str, Any] = copy.deepcopy(reduced["metadata"])
    for name in _METADATA:
        metadata.pop(name, None)
    annotations = metadata.pop("annotations", {})
    remaining = {name: value for name, value in annotations.items() if name not in _ANNOTATIONS}
    return reduced | {"metadata": metadata | ({"annotations": remaining} if remaining else {})}
