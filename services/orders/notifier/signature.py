"""Signs a webhook so that its receiver can tell who sent it, and that nobody changed it.

Source: Standard Webhooks, https://www.standardwebhooks.com (symmetric signatures, `v1`).
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

_PREFIX: Final = "whsec_"


def signed_headers(
    webhook_id: str, at_s: int, body: bytes, secrets: Iterable[str]
) -> dict[str, str]:
    """Return the headers of a webhook, with a signature by each secret.

    A secret is `whsec_` + base64, `at_s` is unix time.
    """
    content = b".".join((webhook_id.encode(), str(at_s).encode(), body))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(_signature(content, secret) for secret in secrets),
    }


def _signature(content: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return f"v1,{digest}"
