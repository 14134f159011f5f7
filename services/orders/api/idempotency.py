"""The Idempotency-Key header.

Source: draft-ietf-httpapi-idempotency-key-header-07; a bare token is taken as well as the
draft's quoted string, because that is what most clients send.
"""

import re
from typing import Annotated, Final

from msgspec import Meta

from orders.api.problems import INVALID_KEY, MISSING_KEY, Refusal

FIELD: Final = "Idempotency-Key"
MAX_CHARS: Final = 255
# Visible ASCII. No comma: WSGI servers join the fields of a repeated header with one.
_BARE_FORM: Final = r"[\x21\x23-\x2b\x2d-\x7e][\x21-\x2b\x2d-\x7e]{0,254}"
_QUOTED_FORM: Final = r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"'
_BARE: Final = re.compile(_BARE_FORM + r"\Z")
_QUOTED: Final = re.compile(_QUOTED_FORM + r"\Z")
_ESCAPE: Final = re.compile(r"\\(.)")
# For the documentation: how the field is written, quotes and escapes included.
IdempotencyKey = Annotated[str, Meta(pattern=rf"^({_BARE_FORM}|{_QUOTED_FORM})\Z")]


def idempotency_key(header: str | None, *, required: bool) -> str | None:
    """Return the key of a request; None if it has none and needs none."""
    if header is None:
        if required:
            raise Refusal(MISSING_KEY, "Send an Idempotency-Key header with this request.")
        return None
    if _BARE.match(header):
        return header
    quoted = _QUOTED.match(header)
    if quoted is None:
        raise Refusal(
            INVALID_KEY,
            f"Send one Idempotency-Key of 1 to {MAX_CHARS} visible ASCII characters; "
            "one with a comma must be in double quotes.",
        )
    return _ESCAPE.sub(r"\1", quoted[1])
