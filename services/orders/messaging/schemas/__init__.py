"""The JSON Schema of every message type, generated from the structs that the code decodes into.

The files beside this one are committed for other code bases. A test compares them with the structs.
Only add optional members: none may change, disappear or become required. For any other change send
a new type (`order.created.v2`) beside the old one. `python -m orders.messaging.schemas` writes the
files again.
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
