"""The CRD is what the types say, structural, and bounded."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from orderservice_operator.crd import definition
from orderservice_operator.crd.schema import schema
from orderservice_operator.resource.spec import OrderService, Spec

Schema = dict[str, Any]


def test_the_committed_crd_is_what_the_types_say() -> None:
    hint = "run `python -m orderservice_operator.crd`"
    assert definition.FILE.read_text() == definition.text(), hint


def _nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from _nodes(node[key], f"{path}[]")


@pytest.fixture(scope="module")
def spec_nodes() -> dict[str, Schema]:
    return dict(_nodes(schema(inspect.type_info(Spec))))


def test_every_field_says_what_it_is_for(spec_nodes: dict[str, Schema]) -> None:
    silent = [
        p for p, node in spec_nodes.items() if p and "[]" not in p and not node.get("description")
    ]
    assert not silent


def test_every_string_list_and_map_is_bounded(spec_nodes: dict[str, Schema]) -> None:
    """CEL's cost is estimated from the bounds, and etcd keeps what is accepted."""
    bound = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in spec_nodes.items()
        if (limit := bound.get(node.get("type", "string")))
        and limit not in node
        and "enum" not in node
    ]
    assert not unbounded


def test_every_number_is_bounded(spec_nodes: dict[str, Schema]) -> None:
    numbers = {p: n for p, n in spec_nodes.items() if n.get("type") in {"integer", "number"}}
    assert numbers
    assert all("minimum" in node and "maximum" in node for node in numbers.values()), numbers


def test_a_schema_is_structural(spec_nodes: dict[str, Schema]) -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "prefixItems"}
    # Amounts may be integers or texts, which has a form of its own.
    mark = "x-kubernetes-int-or-string"
    odd = [
        path for path, node in spec_nodes.items() if forbidden & node.keys() and mark not in node
    ]
    assert not odd


def test_only_the_image_and_the_secrets_have_to_be_given(spec_nodes: dict[str, Schema]) -> None:
    required = {
        f"{p}.{name}" for p, node in spec_nodes.items() for name in node.get("required", [])
    }
    expected = {".image", ".api", ".notifier", ".database", ".messaging"}
    secrets = {name for name in required if "ecretRef" in name}
    inside_optional = {".api.ingress.host", ".api.httpRoute.parentRefs"}
    inside_lists = {name for name in required if "[]" in name}
    assert required == expected | secrets | inside_optional | inside_lists


def test_defaults_of_the_crd_are_those_of_the_types(spec_nodes: dict[str, Schema]) -> None:
    assert spec_nodes[".worker"]["default"] == {}
    assert spec_nodes[".worker.prefetch"]["default"] == 10
    assert list(spec_nodes[".messaging.retryDelaysSeconds"]["default"]) == [5, 30, 300]
    assert "default" not in spec_nodes[".cache.secretRef"]


def test_what_a_crd_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot express"):
        schema(inspect.type_info(bool | str))
    with pytest.raises(TypeError, match="cannot express"):
        schema(inspect.type_info(bytes))


def test_every_rule_has_a_message_for_people(spec_nodes: dict[str, Schema]) -> None:
    nodes = [*spec_nodes.values(), schema(inspect.type_info(OrderService))]
    rules = [rule for node in nodes for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) >= 14
    assert all(len(rule["message"]) > 20 for rule in rules)


def test_a_field_of_a_newer_version_is_no_error() -> None:
    manifest = yaml.safe_load(
        """
        metadata: {name: a}
        spec:
          image: a:1
          future: 1
          api: {secretRef: {name: a}}
          notifier: {secretRef: {name: a}}
          database: {primarySecretRef: {name: a}}
          messaging: {secretRef: {name: a}, future: {}}
        """
    )
    assert msgspec.convert(manifest, OrderService).spec.worker.prefetch == 10


def _of_items(node: Schema) -> Iterator[Schema]:
    """Yield the schema of every list's items, and of all below them."""
    if "items" in node:
        yield from (below for _, below in _nodes(node["items"]))
    for child in node.get("properties", {}).values():
        yield from _of_items(child)


def test_nothing_is_filled_into_the_items_of_a_list(spec_nodes: dict[str, Schema]) -> None:
    """A three-way merge of clients replaces lists whole, so it would never come to an end."""
    below = list(_of_items(spec_nodes[""]))
    assert len(below) > 20
    assert [node for node in below if "default" in node] == []


def test_lists_whose_items_have_names_are_merged_by_them(spec_nodes: dict[str, Schema]) -> None:
    """A server-side apply must not merge by position. References to gateways may repeat a name."""
    named = {
        path: node.get("x-kubernetes-list-type")
        for path, node in spec_nodes.items()
        if "name" in node.get("items", {}).get("required", [])
    }
    del named[".api.httpRoute.parentRefs"]
    assert len(named) > 5
    assert set(named.values()) == {"map"}


def test_two_fields_are_floating_point_numbers_and_no_more(
    spec_nodes: dict[str, Schema],
) -> None:
    """Kubernetes' conventions advise against them."""
    numbers = {path for path, node in spec_nodes.items() if node.get("type") == "number"}
    assert numbers == {".observability.samplerRatio", ".slo.availability"}


def test_the_definition_is_small_enough_for_a_client_side_apply() -> None:
    """The annotation of `kubectl apply` has the whole object, and all annotations 256 KiB."""
    assert len(msgspec.json.encode(definition.definition())) < 200_000


def test_conditions_have_what_kubernetes_asks_of_them() -> None:
    (version,) = definition.definition()["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    condition = status["properties"]["conditions"]["items"]
    assert set(condition["required"]) == {"type", "status", "reason", "lastTransitionTime"}


def test_deleting_all_of_everything_takes_no_service_away() -> None:
    """`kubectl delete all --all` deletes what has the category `all`."""
    assert definition.definition()["spec"]["names"]["categories"] == ["orders"]
