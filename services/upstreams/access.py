"""Access to a simulator: open, or with one of the accepted tokens."""

from typing import Any

import falcon
import msgspec

from upstreams.web import Refusal, answer, body, is_control


class Accepted(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The tokens that are accepted; without any, every request is."""

    tokens: list[str] = []


class Access:
    """Refuse business requests without an accepted token; `/control` and `/livez` always work."""

    def __init__(self, tokens: str) -> None:
        """Take the tokens, separated by spaces."""
        self.accepted = Accepted(tokens.split())

    def process_resource(
        self,
        req: falcon.Request,
        _resp: falcon.Response,
        _resource: object,
        _params: dict[str, Any],
    ) -> None:
        """Look at the token before the work."""
        tokens = self.accepted.tokens
        if not tokens or is_control(req):
            return
        scheme, _, token = (req.auth or "").partition(" ")
        if scheme != "Bearer" or token not in tokens:
            raise Refusal(401, "unauthorized")


class TokensResource:
    """`PUT /control/tokens`: replace the tokens that are accepted."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def on_put(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Replace the accepted tokens by those of the body."""
        self._access.accepted = body(req, Accepted)
        answer(resp, {"accepted": len(self._access.accepted.tokens)})
