"""Signs a webhook so that its receiver can tell who sent it, and that nobody changed it.

Source: Standard Webhooks, https://www.standardwebhooks.com (symmetric signatures, `v1`).
"""

import base64
import hashlib
import hmac
from typing import Final

_PREFIX: Final = "whsec_"


def signed_headers(webhook_id: str, at_s: int, body: bytes, secret: str) -> dict[str, str]:
    """Return the headers of a signed webhook; `secret` is `whsec_` + base64, `at_s` unix time."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    content = b".".join((webhook_id.encode(), str(at_s).encode(), body))
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{digest}",
    }
