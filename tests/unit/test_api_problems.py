"""Every error becomes a problem with all members, and reveals nothing else."""

import falcon
import msgspec
import pytest

from orders.api.problems import (
    INVALID,
    BodyIncomplete,
    BodyTooLarge,
    Fault,
    Problem,
    Refusal,
    refusal,
    render,
)
from orders.database.orders import KeyReused
from orders.database.statements import Busy
from orders.errors import Permanent, Transient
from orders.telemetry.context import accept

CONTEXT, _ = accept("the-id", None)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Refusal(INVALID, "x"), 400, None),
        (BodyIncomplete("secret"), 400, None),
        (BodyTooLarge("secret"), 413, None),
        (KeyReused(), 422, None),
        (Busy("secret", retry_after_s=1), 409, "1"),
        (Transient("secret"), 503, "1"),
        (Transient("secret", retry_after_s=2.2), 503, "3"),
        (Permanent("secret"), 500, None),
        (falcon.HTTPRouteNotFound(description="secret"), 404, None),
        (falcon.HTTPBadRequest(description="secret"), 400, None),
        (ValueError("secret"), 500, None),
        (RecursionError("secret"), 500, None),
    ],
)
def test_a_class_of_error_has_one_answer(
    error: Exception, status: int, retry_after: str | None
) -> None:
    answer = refusal(error)
    assert answer.kind.status == status
    assert dict(answer.headers).get("Retry-After") == retry_after
    assert b"secret" not in render(answer, "/", CONTEXT)


def test_a_problem_has_all_members() -> None:
    refusal = Refusal(INVALID, "wrong", faults=[Fault("#/total", "too much")])
    problem = msgspec.json.decode(
        render(refusal, "/api/orders", CONTEXT), type=Problem, strict=True
    )
    assert problem.title
    assert problem.error == problem.detail == "wrong"
    assert (problem.status, problem.instance) == (400, "/api/orders")
    assert (problem.correlation_id, problem.trace_id) == ("the-id", CONTEXT.trace_id)
    assert problem.errors == [Fault("#/total", "too much")]


@pytest.mark.parametrize(
    ("path", "instance"),
    [("/a b", "/a%20b"), ("//evil.example/x", "/evil.example/x"), ("/\xc3\xbc", "/%C3%BC"),
     ('/"<>\n', "/%22%3C%3E%0A"), ("", "/"), ("/" + "x" * 999, "/" + "x" * 256)],
)  # fmt: skip
def test_an_instance_is_a_path_without_a_host(path: str, instance: str) -> None:
    problem = msgspec.json.decode(render(Refusal(INVALID, "x"), path, CONTEXT), type=Problem)
    assert problem.instance == instance
