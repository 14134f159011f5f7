"""The issuer's public keys (JWKS): fetched in the background, kept while the issuer is away.

No request fetches. A request that needs an unknown key asks for a fetch and waits briefly, but only
if the last fetch is long enough ago. So invented key ids cause no storm, at the issuer or here.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec
import structlog

from orders.errors import OrdersError, Transient
from orders.upstream.http import InvalidAnswer, Upstream, decode
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest, HttpResponse

_REFRESH_S: Final = 300.0
_RETRY_S: Final = 5.0  # after a failure, and between fetches that requests ask for
_FETCH_BUDGET_S: Final = 3.0
_WAIT_S: Final = 0.5  # how long a request waits for the fetch that it started
_LIMIT_BYTES: Final = 256 * 1024
_KEYS_LIMIT: Final = 100
# Keys to try for a token that names none: the last, the current, the next. Each costs 60 to 150 µs.
_UNNAMED_LIMIT: Final = 3
_log = structlog.get_logger()

KeySet = dict[tuple[str | None, str], jwt.PyJWK]  # by key id and algorithm


class _Jwks(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """Keys by id and algorithm. `start` belongs after fork: it starts a thread."""

    def __init__(
        self, fetch: Callable[[], KeySet], *, retry_s: float = _RETRY_S, wait_s: float = _WAIT_S
    ) -> None:
        self._fetch, self._retry_s, self._wait_s = fetch, retry_s, wait_s
        self._keys: KeySet | None = None
        self._tried_at = self._asked_at = float("-inf")
        self._changed = threading.Condition()
        self._begun = self._ended = self._wanted = 0  # counts the fetches
        self._answered = False  # whether the last one brought keys
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="issuer-keys", daemon=True)

    def start(self) -> None:
        """Start the thread that fetches the keys."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread that fetches the keys."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the key of this id, or without an id the keys of the algorithm; at most three.

        Raises Transient while none at all has ever been fetched.
        """
        keys = self._lookup(key_id, algorithm)
        if not keys:
            self._await_fetch()
            keys = self._lookup(key_id, algorithm)
        if not keys and self._keys is None:
            raise Transient("the issuer's keys are not known yet", retry_after_s=self._retry_s)
        return keys

    def _lookup(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        keys = self._keys or {}
        if key_id is not None:
            key = keys.get((key_id, algorithm))
            return () if key is None else (key,)
        fitting = [key for (_, name), key in keys.items() if name == algorithm]
        return fitting[:_UNNAMED_LIMIT]

    def _may_ask(self) -> bool:
        now = time.monotonic()
        if now - max(self._tried_at, self._asked_at) < self._retry_s:
            return False
        self._asked_at = now
        return True

    def _await_fetch(self) -> None:
        """Wait for another request's fetch, or start one if it is due.

        While the issuer is away only one request waits, and holds up no other.
        """
        with self._changed:
            shared = self._wanted > self._ended and self._answered
            if not shared:
                if not self._may_ask():
                    return
                self._wanted = (
                    self._begun + 1
                )  # a fetch in progress may have started before the key was published
            number = self._wanted
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended >= number or self._closed, self._wait_s)

    def _watch(self) -> None:
        while not self._closed:
            self._begun += 1
            self._try_fetch()
            with self._changed:
                self._tried_at, self._ended = time.monotonic(), self._begun
                self._changed.notify_all()
                pause_s = _REFRESH_S if self._answered else self._retry_s
                self._changed.wait_for(lambda: self._wanted > self._begun or self._closed, pause_s)

    def _try_fetch(self) -> None:
        try:
            keys = self._fetch()
        except OrdersError as error:
            self._answered = False
            _log.warning("issuer_keys.not_fetched", error=str(error))
            return
        self._answered = True  # before the keys: a request that sees them may share a fetch
        self._keys = keys


class FetchedOnce:
    """A check that fails until the keys could be fetched once, and never again."""

    def __init__(self, fetch: Callable[[], KeySet]) -> None:
        self._fetch, self._fetched = fetch, False

    def __call__(self) -> None:
        """Fetch unless that was done. Raises Transient, and InvalidAnswer without a usable key."""
        if not self._fetched:
            self._fetch()
            self._fetched = True


def jwks(url: str, algorithms: Iterable[str]) -> Callable[[], KeySet]:
    """Return the fetch of a JWKS URL: bounded in time and size. Call it after fork."""
    parts = urlsplit(url)
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    policy = msgspec.structs.replace(
        UpstreamPolicy().within(_FETCH_BUDGET_S), response_limit_bytes=_LIMIT_BYTES
    )
    upstream = Upstream("issuer", f"{parts.scheme}://{parts.netloc}", policy)
    request = HttpRequest("GET", path, "/jwks")
    accepted = tuple(algorithms)
    return lambda: upstream.call(request, lambda reply: _read(reply, accepted))


def _read(reply: HttpResponse, algorithms: Iterable[str]) -> KeySet:
    keys: KeySet = {}
    for key in decode(reply, _Jwks).keys[:_KEYS_LIMIT]:
        if key.get("kty") == "oct" or key.get("use", "sig") != "sig":
            continue
        for algorithm in algorithms:
            if key.get("alg", algorithm) == algorithm:
                _add(keys, key, algorithm)
    if not keys:
        raise InvalidAnswer("no usable key in the JWKS")
    return keys


def _add(keys: KeySet, key: dict[str, Any], algorithm: str) -> None:
    try:
        keys[key.get("kid"), algorithm] = jwt.PyJWK(key, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return  # not a key, or not of the type that the algorithm needs
