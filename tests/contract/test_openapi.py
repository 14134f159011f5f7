"""The OpenAPI document is valid, complete, and readable by the Swagger UI that is packaged."""

import functools
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openapi_spec_validator
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from contract.serverless_api import client
from orders.api import changes, order_list
from orders.api.problems import Refusal
from orders.api.requests import decode_order, idempotency_key

METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture(scope="module", params=[False, True], ids=["open", "tokens"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    answer = client(tokens=request.param).simulate_get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for path in document["paths"].values() for item in path.values()]


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    openapi_spec_validator.validate(document)


def test_the_document_can_be_read_as_3_0(document: dict[str, Any]) -> None:
    """The packaged Swagger UI knows only 3.0; `/docs` relabels the document for it."""
    openapi_spec_validator.validate({**document, "openapi": "3.0.3"})


def test_the_paths_are_those_of_the_contract(document: dict[str, Any]) -> None:
    operations = {(path, method) for path, parts in document["paths"].items() for method in parts}
    assert operations == {
        ("/api/orders", "post"),
        ("/api/orders/{id}", "get"),
        ("/api/orders/{id}/cancellation", "post"),
        ("/api/orders/{id}/history", "get"),
        ("/api/orders/{id}/refunds", "post"),
        ("/api/orders/user/{userId}", "get"),
        ("/health", "get"),
    }


def test_an_order_is_described_with_its_bounds(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["OrderRequest"]
    assert request["additionalProperties"] is False
    assert set(request["required"]) == set(request["properties"])
    assert request["properties"]["quantity"]["maximum"] == 1000
    assert request["properties"]["total"]["maximum"] == 99999999.99
    assert request["properties"]["paymentMethod"]["pattern"] == "^[A-Za-z0-9_.:-]{1,64}$"
    view = document["components"]["schemas"]["OrderView"]["properties"]
    assert view["total"]["type"] == "number"
    assert view["createdAt"]["format"] == "date-time"
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
        for item in operations(document)
        for answer in item["responses"].values()
    )


def test_scopes_are_named_only_where_tokens_are_asked_for() -> None:
    opened, secured = (
        client(tokens=tokens).simulate_get("/openapi.json").json for tokens in (0, 1)
    )
    assert "securitySchemes" not in opened["components"]
    assert "401" not in opened["paths"]["/api/orders"]["post"]["responses"]
    post = secured["paths"]["/api/orders"]["post"]
    assert post["security"] == [{"bearer": []}]
    assert post["x-required-scope"] == "orders:write"
    assert "`orders:write`" in post["description"]
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
    removed=st.sampled_from([*GOOD, None, None, None]),
    strange=st.sampled_from(["x", "user_id", None, None, None]),
)
def test_the_schema_accepts_what_the_rules_accept_and_nothing_else(
    members: dict[str, str], removed: str | None, strange: str | None
) -> None:
    order = {**GOOD, **members, **({strange: "1"} if strange else {})}
    order.pop(removed or "", None)
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in order.items()) + "}"
    try:
        decode_order(body.encode())
    except Refusal:
        is_accepted = False
    else:
        is_accepted = True
    assert _validator().is_valid(json.loads(body, parse_float=Decimal)) == is_accepted, body


CHANGES: dict[str, tuple[Callable[[bytes], object], dict[str, str]]] = {
    "RefundRequest": (lambda body: changes.refund(_environ(body)), {"amount": "5", "reason": '""'}),
    "CancellationRequest": (lambda body: changes.cancellation(_environ(body)), {"reason": '"a"'}),
}
REASONS = [
    '""', '"a"', "7", "null", f'"{"x" * 200}"', f'"{"x" * 201}"', f'"{"é" * 200}"', r'"a\tb\nc"',
    r'"\u0000"', r'"\u001b[2J"', r'"\u009b"', r'"a\r"', r'"\ud83d\ude00"', "[]",
]  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@given(data=st.data())
def test_what_changes_an_order_is_accepted_as_its_schema_says(name: str, data: Any) -> None:
    accept, good = CHANGES[name]
    texts = {"amount": LITERALS["total"], "reason": REASONS, "x": ["1"]}
    chosen = {member: st.sampled_from(texts[member]) for member in [*good, "x"]}
    members = {**good, **data.draw(st.fixed_dictionaries({}, optional=chosen))}
    members.pop(data.draw(st.sampled_from([*good, None, None])) or "", None)
    body = "{" + ", ".join(f'"{member}": {text}' for member, text in members.items()) + "}"
    is_accepted = _accepts(lambda: accept(body.encode()))
    decoded = json.loads(body, parse_float=Decimal)
    assert _validator(name).is_valid(decoded) == is_accepted, body


def _environ(body: bytes) -> dict[str, Any]:
    return {
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }  # fmt: skip


def _accepts(decode: Callable[[], object]) -> bool:
    try:
        decode()
    except Refusal:
        return False
    return True


PARTS = {
    "page": ["1", "2", "100", "10000", "10001", "0", "-1"],
    "pageSize": ["1", "20", "100", "101", "0"],
    "cursor": ["A" * 44, "A" * 43, "A" * 45, "%C3%A9" * 44, "A-_9" * 11],
}


@given(
    query=st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(texts) for name, texts in PARTS.items()}
    )
)
def test_the_part_of_a_list_is_accepted_as_its_schema_says(query: dict[str, str]) -> None:
    """Two rules are only text: how deep a page may be, and that a cursor comes from this list."""
    size = int(query.get("pageSize", order_list.DEFAULT_PAGE_SIZE))
    assume(int(query.get("page", 1)) * size <= order_list.MAX_DEPTH)
    text = "&".join(f"{name}={value}" for name, value in query.items())
    is_accepted = _accepts(lambda: order_list.page_query(text))
    members = {name: value if name == "cursor" else int(value) for name, value in query.items()}
    schema = _parameters("/api/orders/user/{userId}", "get")["part"]["schema"]
    if "cursor" in query and "page" not in query:  # its form is looked at with the list's key
        is_accepted = is_accepted and order_list.is_well_formed(query["cursor"])
    assert Draft202012Validator(schema).is_valid(members) == is_accepted, text


@given(
    text=st.text(st.characters(max_codepoint=0x17F), max_size=300) | st.text('ab"\\ ,', min_size=1)
)
@example(text='"' + "a" * 255 + '"')
@example(text="a" * 256)
@example(text='"' + '\\"' * 255 + '"')
@example(text="a\n")
def test_an_idempotency_key_is_accepted_as_its_schema_says(text: str) -> None:
    parameter = _parameters("/api/orders", "post")["Idempotency-Key"]
    is_accepted = _accepts(lambda: idempotency_key(text, required=False))
    # To ECMA-262, whose patterns these are, `$` is the end; to Python also what a last \n follows.
    ends = not text.endswith("\n")
    assert (ends and Draft202012Validator(parameter["schema"]).is_valid(text)) == is_accepted


def test_a_key_that_is_demanded_is_demanded_by_the_document() -> None:
    document = client(key_required=True).simulate_get("/openapi.json").json
    keys = [
        parameter["required"]
        for operation in operations(document)
        for parameter in operation["parameters"]
        if parameter["name"] == "Idempotency-Key"
    ]
    assert keys == [True] * 3


def test_a_reader_finds_whom_to_ask_and_what_each_operation_is_for(
    document: dict[str, Any],
) -> None:
    assert document["info"]["contact"]["url"]
    assert [server["url"] for server in document["servers"]] == ["/"]
    named = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert {tag for operation in operations(document) for tag in operation["tags"]} == named
    assert all(operation["description"] for operation in operations(document))


def test_no_text_has_a_placeholder(document: dict[str, Any]) -> None:
    descriptions = [
        parameter["description"]
        for operation in operations(document)
        for parameter in operation["parameters"]
    ]
    descriptions += [operation["description"] for operation in operations(document)]
    assert [text for text in descriptions if "{" in text] == []


def _parameters(path: str, method: str) -> dict[str, Any]:
    parameters = _document()["paths"][path][method]["parameters"]
    return {parameter["name"]: parameter for parameter in parameters}


@functools.cache
def _document() -> dict[str, Any]:
    answer = client().simulate_get("/openapi.json")
    document: dict[str, Any] = json.loads(answer.text, parse_float=Decimal)
    return document


@functools.cache
def _validator(name: str = "OrderRequest") -> Draft202012Validator:
    return Draft202012Validator(_document()["components"]["schemas"][name])


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
        asset = api.simulate_get(f"/docs/{name}")
        assert asset.status_code == 200
        assert len(asset.content) > 100


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
