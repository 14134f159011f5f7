"""The fields of the resource as Markdown, from its schema: what docs/custom-resource.md holds."""

from collections.abc import Iterator
from typing import Any, Final

from orderservice_operator.crd.definition import definition
from orderservice_operator.crd.schema import Schema

BEGIN: Final = "<!-- fields, written by `python -m orderservice_operator.crd --reference` -->\n"
END: Final = "<!-- end of fields -->\n"
_HEAD: Final = "| field | type | default | |\n|---|---|---|---|"


def with_fields(text: str) -> str:
    """Return a document with an updated table of fields between its two marks."""
    head, _, remainder = text.partition(BEGIN)
    _, _, tail = remainder.partition(END)
    return f"{head}{BEGIN}\n{fields()}\n{END}{tail}"


def fields() -> str:
    """Return a table for every object of the spec."""
    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = [_rule(rule) for rule in root.get("x-kubernetes-validations", [])]
    sections = [*_sections("spec", root["properties"]["spec"])]
    return "\n".join([*rules, "", *sections])


def _sections(path: str, node: Schema) -> Iterator[str]:
    properties: dict[str, Schema] = node["properties"]
    required = node.get("required", [])
    yield f"### `{path}`\n"
    yield _HEAD
    for name, child in properties.items():
        default = "**required**" if name in required else _default(child)
        yield f"| `{name}` | {_type(child)} | {default} | {_plain(child.get('description', ''))} |"
    yield ""
    if rules := [_rule(rule) for rule in node.get("x-kubernetes-validations", [])]:
        yield "\n".join(rules) + "\n"
    for name, child in properties.items():
        if name != "podTemplate" or path == "spec":  # those of the processes are the same
            yield from _below(f"{path}.{name}", child)


def _below(path: str, node: Schema) -> Iterator[str]:
    inner = node.get("items", node)
    # What every container has is told once.
    is_opaque = "x-kubernetes-preserve-unknown-fields" in inner
    if "properties" in inner and not is_opaque and not path.endswith((".limits", ".requests")):
        yield from _sections(path + ("[]" if "items" in node else ""), inner)


def _default(node: Schema) -> str:
    value = node.get("default")
    if value is None or isinstance(value, dict):
        return ""
    return f"`{_plain(_literal(value))}`"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return str(value)


def _type(node: Schema) -> str:
    if "enum" in node:
        return _plain(" | ".join(f"`{value}`" for value in node["enum"]))
    match node.get("type", "amount"):
        case "integer" | "number":
            qualifier = "below " if node.get("exclusiveMaximum") else ""
            return f"{node['type']}, {node['minimum']} to {qualifier}{node['maximum']}"
        case "array":
            return f"list of {_type(node['items'])}{_at_most(node, 'maxItems')}"
        case "object":
            if "x-kubernetes-preserve-unknown-fields" in node:
                return "object of Kubernetes"
            return "object" if "properties" in node else f"map{_at_most(node, 'maxProperties')}"
    return str(node.get("type", "amount")) + _at_most(node, "maxLength")


def _at_most(node: Schema, bound: str) -> str:
    return f", at most {node[bound]}" if bound in node else ""


def _rule(rule: Schema) -> str:
    return f"- {rule['message']}"


def _plain(text: str) -> str:
    """Keep a cell of a table in one piece."""
    return text.replace("|", "\\|")
