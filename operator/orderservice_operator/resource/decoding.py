"""Decode an OrderService as the API server sends it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from orderservice_operator.resource.spec import Metadata, OrderService
from orderservice_operator.resource.status import Status


class Invalid(msgspec.Struct, frozen=True):
    """A resource that cannot be read, for example one stored before a rule existed."""

    metadata: Metadata
    problem: str
    status: Status = Status()


class _Shell(msgspec.Struct, frozen=True):
    metadata: Metadata
    status: Status = Status()


def decode(body: Mapping[str, Any]) -> OrderService | Invalid:
    """Decode a resource as the API server sends it."""
    try:
        return msgspec.convert(body, OrderService)
    except msgspec.ValidationError as error:
        return _invalid(body, str(error))


def _invalid(body: Mapping[str, Any], problem: str) -> Invalid:
    try:
        shell = msgspec.convert(body, _Shell)
    except msgspec.ValidationError:  # the status was another version's to write
        shell = msgspec.convert({"metadata": body["metadata"]}, _Shell)
    return Invalid(shell.metadata, problem, shell.status)
