"""The requests to RabbitMQ's management API that apply a topology.

Source: https://www.rabbitmq.com/docs/http-api-reference
"""

import urllib.parse
from typing import Any, Final

import msgspec
import requests

from orders import verified
from orders.errors import Permanent, SettingError, Transient

_TIMEOUT_S: Final = (3.0, 15.0)  # to connect; to read, because a busy broker answers a listing late
_REFUSED: Final = frozenset({401, 403})


class Management:
    """A session with the management API of one virtual host."""

    def __init__(self, url: str, vhost: str) -> None:
        url_parts = urllib.parse.urlsplit(url)
        if url_parts.scheme not in {"http", "https"} or not url_parts.hostname:
            raise SettingError(
                "ORDERS_MANAGEMENT_URL is wrong: expected http://user:password@host:port"
            )
        host = url_parts.netloc.rpartition("@")[2]
        self._base = f"{url_parts.scheme}://{host}{url_parts.path.rstrip('/')}/api"
        self.vhost = vhost
        self._session = requests.Session()
        if url_parts.username is not None:
            unquote = urllib.parse.unquote
            self._session.auth = (unquote(url_parts.username), unquote(url_parts.password or ""))

    def list(self, kind: str) -> list[dict[str, Any]]:
        """Return everything of a kind (`queues`, `policies`, …) in the virtual host."""
        # Without statistics: those of thousands of queues make the listing slow.
        query = "?disable_stats=true&enable_queue_totals=true" if kind == "queues" else ""
        answer = self._request("GET", f"/{kind}/{_quote(self.vhost)}{query}")
        try:
            return msgspec.json.decode(answer.content, type=list[dict[str, Any]])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise foreign(f"GET /{kind}") from error

    def put(self, kind: str, name: str, body: object) -> None:
        """Make or replace one object."""
        self._request("PUT", f"/{kind}/{_quote(self.vhost)}/{_quote(name)}", body)

    def bind(self, source: str, queue: str, body: object) -> None:
        """Bind a queue to an exchange."""
        path = f"/bindings/{_quote(self.vhost)}/e/{_quote(source)}/q/{_quote(queue)}"
        self._request("POST", path, body)

    def unbind(self, source: str, queue: str, key: str) -> None:
        """Remove a binding; `key` is its `properties_key` in the listing. Idempotent."""
        path = f"/bindings/{_quote(self.vhost)}/e/{_quote(source)}/q/{_quote(queue)}/{_quote(key)}"
        self._request("DELETE", path, absent=True)

    def close(self) -> None:
        """Close the connection to the management API."""
        self._session.close()

    def _request(
        self, method: str, path: str, body: object = None, *, absent: bool = False
    ) -> requests.Response:
        """Make a request; with `absent`, a 404 counts as success."""
        try:
            answer = self._session.request(
                method,
                self._base + path,
                data=None if body is None else msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
                timeout=_TIMEOUT_S,
            )
        except requests.RequestException as error:
            # The text of requests' errors contains the address, so leave it out.
            reason = verified.advice(error, verified.OF_REQUESTS) or type(error).__name__
            raise Transient(f"RabbitMQ's management API: {reason}") from error
        if absent and answer.status_code == requests.codes.not_found:
            return answer
        return self._check(answer, f"{method} {path.partition('?')[0]}")

    def _check(self, answer: requests.Response, request: str) -> requests.Response:
        status = answer.status_code
        if status in _REFUSED:
            raise Permanent(
                f"{request}: {status}: give the user of ORDERS_MANAGEMENT_URL the right password, "
                f"the tag `policymaker` and permissions on virtual host {self.vhost!r}",
                reason="credentials",
            )
        if status == 404:
            raise Permanent(
                f"{request}: 404: make virtual host {self.vhost!r}, "
                "or correct ORDERS_MANAGEMENT_URL",
                reason="not_found",
            )
        if status >= 500 or status == 429:
            raise Transient(f"{request}: {status}")
        if status >= 400:
            raise Permanent(f"{request}: {status}: {_explanation(answer)}", reason="refused")
        if "json" not in answer.headers.get("Content-Type", "json"):
            raise foreign(request)
        return answer


def foreign(request: str) -> Permanent:
    """Return the error for an answer that is not from RabbitMQ."""
    return Permanent(
        f"{request}: ORDERS_MANAGEMENT_URL is not a RabbitMQ management API", reason="not_found"
    )


def _explanation(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("reason", ""))[:500]
    except (ValueError, AttributeError, RecursionError):
        return "no explanation"


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")
