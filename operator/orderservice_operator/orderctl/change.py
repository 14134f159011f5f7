"""One object that would be written."""

from typing import Literal

import msgspec

Action = Literal["create", "change", "delete"]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """`diff` is a unified diff of YAML; `refused` is why the API server would not have it."""

    action: Action
    kind: str
    name: str
    diff: list[str] = []
    refused: str = ""
