"""What a resource says about itself: the words of the OpenAPI document, next to the code."""

from typing import Any, Literal

import msgspec


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the request outside of its body; `type` is a msgspec type."""

    name: str
    where: Literal["path", "query", "header"]
    type: Any
    description: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One way a request may succeed; `body` is a msgspec type, None for no body."""

    description: str
    body: Any = None
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one resource.

    `refusals` are problems, by status; `token_refusals` come only where tokens are asked for.
    """

    id: str
    summary: str
    action: str | None = None  # label of order_requests_total
    scope: str | None = None
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    answers: dict[int, Answer]
    refusals: dict[int, str] = {}
    token_refusals: dict[int, str] = {}
