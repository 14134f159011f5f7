"""The OpenAPI 3.1 document, made from the routes, their operations and their msgspec types.

Only what 3.0 and 3.1 have in common is used: the packaged Swagger UI reads 3.0 (see docs.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from falcon import Request, Response

from orders.api.middleware import API
from orders.api.problems import MEDIA_TYPE, Problem
from orders.api.requests import KEY_FIELD
from orders.api.resource import Operation, Parameter, ResponseDoc

API_VERSION: Final = "1.0.0"
Json = dict[str, Any]
Schemas = Mapping[Any, Any]
Routes = Mapping[str, Mapping[str, Operation]]

_REF: Final = "#/components/schemas/{name}"
_LIMIT: Final = ("RateLimit", "RateLimit-Policy")
_RETRYABLE: Final = frozenset({409, 429, 503})
_CONTACT: Final = {
    "name": "Order platform maintainers", "url": "https://orders.example/platform",
}  # fmt: skip
_TAGS: Final = {
    "orders": "Place, show and change orders.",
    "service": "Health of the service.",
}
_SCHEME: Final = "bearer"
_BEARER: Final = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
# Answers to any request about orders; 401 and 403 only if tokens are required.
_COMMON_REFUSALS: Final = {
    429: "Over the rate limit.",
    500: "The service failed.",
    503: "The service cannot answer right now.",
}
_TOKEN_REFUSALS: Final = {
    401: "No valid bearer token.",
    403: "The token lacks the scope, or names another user.",
}
_HEADERS: Final = {
    "Location": "The order's path.",
    "ETag": "The order's version.",
    "Idempotency-Replayed": "`true` if an earlier request stored the answer.",
    "Link": "The next page, with rel=next; absent on the last.",
    "Retry-After": "Seconds to wait.",
    "RateLimit": "The remaining quota, and until when it applies.",
    "RateLimit-Policy": "The quota.",
    "X-Correlation-ID": "The id of the request in the logs: the caller's, if well-formed. It is"
    " stored and logged unchanged, so it must not contain private data.",
}


class OpenApi:
    """The OpenAPI document at `/openapi.json`."""

    operations: Final = {
        "GET": Operation(
            id="openApi", summary="This document",
            answers={200: ResponseDoc(description="OpenAPI 3.1.", body=dict[str, Any])},
        )
    }  # fmt: skip

    def __init__(self, document: bytes) -> None:
        self._document = document

    def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with the document, which clients may cache for a minute."""
        resp.data = self._document
        resp.set_header("Cache-Control", "public, max-age=60")

    on_head = on_get


def document(routes: Routes, *, tokens: bool, key_required: bool = False) -> Json:
    """Return the document; with `tokens` it asks for a bearer token and names the scopes.

    With `key_required` a request that takes an Idempotency-Key must send one.
    """
    kinds = {Problem: None, **dict.fromkeys(_types(routes))}
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema_of = dict(zip(kinds, map(_plain, schemas), strict=True))
    result: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Orders",
            "version": API_VERSION,
            "contact": _CONTACT,
            "description": "Place orders and follow them. Integers are written without a decimal"
            " point: `1.0` is refused. Query parameters that are not listed are ignored.",
        },
        "servers": [{"url": "/", "description": "The server of this document."}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": {
            template: {
                method.lower(): _operation(
                    operation, schema_of, _refusals(template, operation, tokens=tokens)
                )
                | {"tags": ["orders" if template.startswith(API) else "service"]}
                for method, operation in operations.items()
            }
            for template, operations in routes.items()
        },
        "components": {"schemas": _plain(components)},
    }
    if key_required:
        _require_keys(result["paths"])
    if tokens:
        result["components"]["securitySchemes"] = {_SCHEME: _BEARER}
        _require_tokens(result["paths"], routes)
    return result


def _types(routes: Routes) -> Iterator[Any]:
    for operations in routes.values():
        for operation in operations.values():
            yield from (parameter.type for parameter in operation.parameters)
            yield from (answer.body for answer in operation.answers.values() if answer.body)
            if operation.body:
                yield operation.body


def _operation(operation: Operation, schema_of: Schemas, refusals: Mapping[int, str]) -> Json:
    limited = 429 in refusals
    answers = {
        str(status): _answer(answer, schema_of, limited=limited)
        for status, answer in operation.answers.items()
    }
    problems = {
        str(status): _refusal(status, reason, schema_of, limited=limited)
        for status, reason in sorted(refusals.items())
    }
    result: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [_parameter(parameter, schema_of) for parameter in operation.parameters],
        "responses": {**answers, **problems},
    }
    if operation.body:
        content = {"application/json": {"schema": schema_of[operation.body]}}
        result["requestBody"] = {"required": operation.body_required, "content": content}
    return result


def _refusals(template: str, operation: Operation, *, tokens: bool) -> dict[int, str]:
    if not template.startswith(API):
        return operation.refusals
    refusals = {**_COMMON_REFUSALS, **operation.refusals}
    return {**refusals, **operation.token_refusals, **_TOKEN_REFUSALS} if tokens else refusals


def _parameter(parameter: Parameter, schema_of: Schemas) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": schema_of[parameter.type],
    }


def _answer(answer: ResponseDoc, schema_of: Schemas, *, limited: bool) -> Json:
    result: Json = {
        "description": answer.description,
        "headers": _headers(*answer.headers, *_LIMIT * limited),
    }
    if answer.body:
        result["content"] = {"application/json": {"schema": schema_of[answer.body]}}
    return result


def _refusal(status: int, reason: str, schema_of: Schemas, *, limited: bool) -> Json:
    retry = ("Retry-After",) if status in _RETRYABLE else ()
    return {
        "description": reason,
        "headers": _headers(*retry, *_LIMIT * limited),
        "content": {MEDIA_TYPE: {"schema": schema_of[Problem]}},
    }


def _headers(*names: str) -> Json:
    return {
        name: {"description": _HEADERS[name], "schema": {"type": "string"}}
        for name in (*names, "X-Correlation-ID")
    }


def _require_tokens(paths: Json, routes: Routes) -> None:
    for template, operations in routes.items():
        for method, operation in operations.items():
            if operation.scope:
                entry = paths[template][method.lower()]
                entry["security"] = [{_SCHEME: []}]  # 3.0 allows scopes only with OAuth 2
                entry["description"] += f" The token needs the scope `{operation.scope}`."
                entry["x-required-scope"] = operation.scope


def _require_keys(paths: Json) -> None:
    for operations in paths.values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                parameter["required"] |= parameter["name"] == KEY_FIELD


def _plain(schema: Any) -> Any:
    """Return msgspec's schema as 3.0 and 3.1 share it: ECMAScript patterns, decimals as numbers."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(value) for name, value in schema.items()}
    if {"type": "null"} in plain.get("anyOf", ()):  # 3.0 and 3.1 say "or null" in different ways
        del plain["anyOf"]
    if plain.get("required") == []:  # 3.0 wants at least one
        del plain["required"]
    if plain.get("format") == "decimal":
        del plain["format"]
        plain["type"] = "number"
    if isinstance(plain.get("pattern"), str):
        plain["pattern"] = plain["pattern"].replace(r"\Z", "$")
    if "enum" in plain:
        plain.setdefault("type", "string")
    return plain
