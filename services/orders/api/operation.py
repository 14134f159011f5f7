"""What a resource says about itself: the words of the OpenAPI document, next to the code."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

# What a responder is called with, by name.
Arguments = Mapping[str, Any]
Decode = Callable[[dict[str, Any], dict[str, str]], Arguments]


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

    `decode` turns the WSGI environment and the path's parameters into the responder's arguments;
    it raises Refusal. `user` tells which user they name: without tokens the request counts for
    that user. With `recent_write` the user's lists are read on the primary for a while ("mark"), or
    the responder is told whether they must be ("look up": `exchange.wrote_recently`). All three
    hold below /api/ only.
    `refusals` are problems, by status; `token_refusals` come only where tokens are asked for.
    """

    id: str
    summary: str
    description: str = ""
    action: str | None = None  # label of order_requests_total
    scope: str | None = None
    public: bool = False  # asks for no token
    decode: Decode = lambda _env, path: path
    user: Callable[[Arguments], int | None] = lambda _arguments: None
    recent_write: Literal["mark", "look up"] | None = None
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_required: bool = True
    answers: dict[int, Answer]
    refusals: dict[int, str] = {}
    token_refusals: dict[int, str] = {}


class Resource(Protocol):
    """A Falcon resource that says what it does: by method, its documentation and label."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Its methods."""
