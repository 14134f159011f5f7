"""The JSON Schema of every message type, made from the structs the code decodes into.

The files beside this one are committed for readers outside this code base; a test holds them to
the structs. Additive only: a member may be added as optional; none may change, go, or become
required. What cannot be added is a new type, `order.created.v2`, sent beside the old one.
Write them anew with `python -m orders.messaging.schemas`.
"""

from pathlib import Path
from typing import Any

import msgspec

from orders.messaging.envelope import BODIES

FOLDER = Path(__file__).parent


def generate() -> dict[str, bytes]:
    """Return the text of each file by its name."""
    return {
        f"{name}.json": msgspec.json.format(msgspec.json.encode(schema(name)), indent=2) + b"\n"
        for name in BODIES
    }


def schema(message_type: str) -> dict[str, Any]:
    """Return the schema of a message type's body."""
    body = BODIES[message_type]
    document = msgspec.json.schema(body)
    (definition,) = document["$defs"].values()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:orders:{message_type}",
        **definition,
        "title": message_type,
    }


def write() -> None:
    """Write the JSON Schema of every message type beside this module."""
    for name, text in generate().items():
        (FOLDER / name).write_bytes(text)
