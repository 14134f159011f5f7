"""The OpenAPI document is valid, complete, and readable by the Swagger UI that is packaged."""

import functools
import json
from decimal import Decimal
from typing import Any

import openapi_spec_validator
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from contract.serverless_api import client
from orders.api.problems import Refusal
from orders.api.requests import decode_order

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module", params=[False, True], ids=["open", "tokens"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    answer = client(tokens=request.param).simulate_get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for path in document["paths"].values() for part in path.values()]


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    openapi_spec_validator.validate(document)


def test_the_document_can_be_read_as_3_0(document: dict[str, Any]) -> None:
    """The packaged Swagger UI knows only 3.0; `/docs` relabels the document for it."""
    openapi_spec_validator.validate({**document, "openapi": "3.0.3"})


def test_the_paths_are_those_of_the_contract(document: dict[str, Any]) -> None:
    found = {(path, method) for path, parts in document["paths"].items() for method in parts}
    assert found == {
        ("/api/orders", "post"),
        ("/api/orders/{id}", "get"),
        ("/api/orders/{id}/cancellation", "post"),
        ("/api/orders/{id}/history", "get"),
        ("/api/orders/{id}/refunds", "post"),
        ("/api/orders/user/{userId}", "get"),
        ("/health", "get"),
    }


def test_an_order_is_described_with_its_bounds(document: dict[str, Any]) -> None:
    asked = document["components"]["schemas"]["OrderRequest"]
    assert asked["additionalProperties"] is False
    assert set(asked["required"]) == set(asked["properties"])
    assert asked["properties"]["quantity"]["maximum"] == 1000
    assert asked["properties"]["total"]["maximum"] == 99999999.99
    assert asked["properties"]["paymentMethod"]["pattern"] == "^[A-Za-z0-9_.:-]{1,64}$"
    shown = document["components"]["schemas"]["OrderView"]["properties"]
    assert shown["total"]["type"] == "number"
    assert shown["createdAt"]["format"] == "date-time"
    assert "statusReason" not in document["components"]["schemas"]["OrderView"]["required"]


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400" and operation["operationId"] != "health":
                assert list(answer["content"]) == ["application/problem+json"]


def test_names_are_unique_and_every_answer_is_described(document: dict[str, Any]) -> None:
    named = [operation["operationId"] for operation in operations(document)]
    assert len(set(named)) == len(named)
    assert all(
        answer["description"]
        for part in operations(document)
        for answer in part["responses"].values()
    )


def test_scopes_are_named_only_where_tokens_are_asked_for() -> None:
    opened, secured = (
        client(tokens=tokens).simulate_get("/openapi.json").json for tokens in (0, 1)
    )
    assert "securitySchemes" not in opened["components"]
    assert "401" not in opened["paths"]["/api/orders"]["post"]["responses"]
    post = secured["paths"]["/api/orders"]["post"]
    assert post["security"] == [{"bearer": ["orders:write"]}]
    assert {"401", "403"} <= set(post["responses"])
    assert "security" not in secured["paths"]["/health"]["get"]


# -- schema and rules ----------------------------------------------------------------------

LITERALS = {
    "userId": ["1", "7", "9007199254740991", "9007199254740992", "0", "-1", "1.5", '"7"', "1e2"],
    "productId": ["1", "0", "null", "9007199254740991", "9007199254740992", "true"],
    "quantity": ["1", "1000", "1001", "0", "-5", "2.5", "[]", '"1"'],
    "total": [
        "0.01", "0.1", "19.9", "19.90", "20", "1e1", "99999999.99", "100000000", "0", "-1", "0.001",
        "19.999", "1e-3", "1e-2", "0.010", '"1"', "99999999.991", "2.675", "86897527.07461092",
    ],
    "paymentMethod": ['"visa"', '""', '"a b"', f'"{"x" * 64}"', f'"{"x" * 65}"', "7", '"é"'],
}  # fmt: skip
GOOD = {"userId": "7", "productId": "3", "quantity": "2", "total": "19.9", "paymentMethod": '"v"'}


@given(
    members=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(texts) for name, texts in LITERALS.items()}
    ),
    missing=st.sampled_from([*GOOD, None, None, None]),
    strange=st.sampled_from(["x", "user_id", None, None, None]),
)
def test_the_schema_accepts_what_the_rules_accept_and_nothing_else(
    members: dict[str, str], missing: str | None, strange: str | None
) -> None:
    order = {**GOOD, **members, **({strange: "1"} if strange else {})}
    order.pop(missing or "", None)
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in order.items()) + "}"
    try:
        decode_order(body.encode())
    except Refusal:
        accepted = False
    else:
        accepted = True
    assert _validator().is_valid(json.loads(body, parse_float=Decimal)) == accepted, body


@functools.cache
def _validator() -> Draft202012Validator:
    answer = client().simulate_get("/openapi.json")
    document = json.loads(answer.text, parse_float=Decimal)
    return Draft202012Validator(document["components"]["schemas"]["OrderRequest"])


# -- Swagger UI ----------------------------------------------------------------------------


def test_the_page_loads_everything_from_this_server() -> None:
    api = client()
    page = api.simulate_get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text.replace("<!DOCTYPE html>", "").replace("<html", "")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "start.js"):
        assert f"/docs/{name}" in page.text
        part = api.simulate_get(f"/docs/{name}")
        assert part.status_code == 200
        assert len(part.content) > 100


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/index.html", "/docs/..", "/docs/../x", "/docs/swagger-ui.js.map"]
)
def test_nothing_else_of_the_package_is_served(path: str) -> None:
    assert client().simulate_get(path).status_code == 404


def test_the_page_can_be_switched_off_but_not_the_document() -> None:
    api = client(docs=False)
    assert api.simulate_get("/docs").status_code == 404
    assert api.simulate_get("/docs/start.js").status_code == 404
    assert api.simulate_get("/openapi.json").status_code == 200
