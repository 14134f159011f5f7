"""Turn the structs of the resource into a structural schema.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from typing import Any, Final

import msgspec
from msgspec import inspect

Schema = dict[str, Any]

_INT_OR_STRING: Final = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
_BOUNDS: Final = {
    "ge": "minimum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


def schema(kind: inspect.Type) -> Schema:
    """Return the structural schema of a type. Raises TypeError for what CRDs cannot express."""
    match kind:
        case inspect.Metadata(extra_json_schema=extra) if extra is _INT_OR_STRING:
            text = schema(kind.type)
            return {name: value for name, value in text.items() if name != "type"} | extra
        case inspect.Metadata():
            return schema(kind.type) | (kind.extra_json_schema or {})
        case inspect.StructType():
            return _object(kind)
        case inspect.UnionType():
            return schema(_not_null(kind))
        case inspect.DictType() | inspect.ListType() | inspect.VarTupleType() | inspect.TupleType():
            return _collection(kind)
        case _:
            return _scalar(kind)


def _collection(
    kind: inspect.DictType | inspect.ListType | inspect.VarTupleType | inspect.TupleType,
) -> Schema:
    match kind:
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case inspect.DictType():
            values = {"type": "object", "additionalProperties": schema(kind.value_type)}
            return values | _lengths(kind, "Properties")
        case inspect.TupleType():
            return _fixed_array(kind)
        case _:
            items = {"type": "array", "items": schema(kind.item_type)}
            return items | _lengths(kind, "Items")


def _scalar(kind: inspect.Type) -> Schema:
    match kind:
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            # Without a format the API server takes integers of any size.
            return {"type": "integer", "format": "int64"} | _bounds(kind)
        case inspect.FloatType():
            return {"type": "number"} | _bounds(kind)
        case inspect.StrType():
            return {"type": "string"} | _bounds(kind) | _lengths(kind, "Length")
        case inspect.LiteralType():
            return {"type": "string", "enum": list(kind.values)}
        case _:
            raise TypeError(f"a CRD cannot express {kind}")


def _object(kind: inspect.StructType) -> Schema:
    node: Schema = {
        "type": "object",
        "properties": {field.encode_name: _property(field) for field in kind.fields},
    }
    if required := [field.encode_name for field in kind.fields if field.required]:
        node["required"] = required
    if rules := getattr(kind.cls, "rules", ()):
        node["x-kubernetes-validations"] = msgspec.to_builtins(rules)
    return node


def _property(field: inspect.Field) -> Schema:
    node = schema(field.type)
    default = _default(field)
    return node if default is None else node | {"default": default}


def _default(field: inspect.Field) -> object:
    """Give objects `{}`: the API server then fills in the defaults of their own fields.

    Where an object has rules it looks at its default by itself, so that has to be whole.
    """
    value = field.default
    if value is msgspec.NODEFAULT:
        value = None if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    default = msgspec.to_builtins(value)
    if not isinstance(value, msgspec.Struct):
        return default
    return _given(default) if getattr(value, "rules", ()) else {}


def _given(node: Schema) -> Schema:
    """Leave out what is None: in a CRD a field without a value is not there."""
    return {
        name: _given(entry) if isinstance(entry, dict) else entry
        for name, entry in node.items()
        if entry is not None
    }


def without_defaults(node: Schema) -> Schema:
    """Return a schema that fills in nothing."""
    result = {name: value for name, value in node.items() if name != "default"}
    if "properties" in result:
        fields = result["properties"].items()
        result["properties"] = {name: without_defaults(field) for name, field in fields}
    if "items" in result:
        result["items"] = without_defaults(result["items"])
    return result


def _not_null(kind: inspect.UnionType) -> inspect.Type:
    """Return the type beside None: in a CRD a field without a value is left out, never null."""
    options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
    texts = [option for option in options if isinstance(option, inspect.StrType)]
    if (
        len(options) == 2
        and texts
        and any(isinstance(option, inspect.IntType) for option in options)
    ):
        return inspect.Metadata(texts[0], extra_json_schema=_INT_OR_STRING)
    if len(options) != 1:
        raise TypeError(f"a CRD cannot express {kind}")
    return options[0]


def _fixed_array(kind: inspect.TupleType) -> Schema:
    size = len(kind.item_types)
    return {
        "type": "array",
        "items": schema(kind.item_types[0]),
        "minItems": size,
        "maxItems": size,
    }


def _bounds(kind: inspect.Type) -> Schema:
    bounds = {name: getattr(kind, key, None) for key, name in _BOUNDS.items()}
    if getattr(kind, "lt", None) is not None:
        bounds |= {"maximum": kind.lt, "exclusiveMaximum": True}  # type: ignore[attr-defined]
    return {name: value for name, value in bounds.items() if value is not None}


def _lengths(kind: inspect.Type, subject: str) -> Schema:
    bounds = {f"min{subject}": kind.min_length, f"max{subject}": kind.max_length}  # type: ignore[attr-defined]
    return {name: value for name, value in bounds.items() if value is not None}
