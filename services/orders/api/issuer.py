"""The issuer's public keys (JWKS): fetched in the background, kept while the issuer is away.

No request fetches keys itself. One that needs an unknown key asks for a fetch and waits briefly,
but only if the last fetch is long enough ago. So invented key ids cause no flood of fetches.
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
_RETRY_S: Final = 5.0  # after a failure, and between fetches for requests
_FETCH_BUDGET_S: Final = 3.0
_WAIT_S: Final = 0.5  # how long a request waits for the fetch that it started
_LIMIT_BYTES: Final = 256 * 1024
_KEYS_LIMIT: Final = 100
# Keys to try for a token without a key id: previous, current and next. Each costs 60 to 150 µs.
_UNNAMED_LIMIT: Final = 3
_log = structlog.get_logger()

KeySet = dict[tuple[str | None, str], jwt.PyJWK]  # by key id and algorithm


class _Jwks(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """Keys by id and algorithm. Call `start` after fork: it starts a thread."""

    def __init__(
        self, fetch: Callable[[], KeySet], *, retry_s: float = _RETRY_S, wait_s: float = _WAIT_S
    ) -> None:
        self._fetch, self._retry_s, self._wait_s = fetch, retry_s, wait_s
        self._keys: KeySet | None = None
        self._tried_at = self._requested_at = float("-inf")
        self._changed = threading.Condition()
        self._started = self._finished = self._requested = 0  # numbers of fetches
        self._succeeded = False  # whether the last fetch brought keys
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

        Raises Transient until a fetch has succeeded.
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
        candidates = [key for (_, name), key in keys.items() if name == algorithm]
        return candidates[:_UNNAMED_LIMIT]

    def _may_request(self) -> bool:
        now = time.monotonic()
        if now - max(self._tried_at, self._requested_at) < self._retry_s:
            return False
        self._requested_at = now
        return True

    def _await_fetch(self) -> None:
        """Wait for another request's fetch, or start one if it is due.

        While the issuer is unavailable only one request waits; the others return at once.
        """
        with self._changed:
            shared = self._requested > self._finished and self._succeeded
            if not shared:
                if not self._may_request():
                    return
                self._requested = (
                    self._started + 1
                )  # a fetch in progress may have started before the key was published
            number = self._requested
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._finished >= number or self._closed, self._wait_s)

    def _watch(self) -> None:
        while not self._closed:
            self._started += 1
            self._try_fetch()
            with self._changed:
                self._tried_at, self._finished = time.monotonic(), self._started
                self._changed.notify_all()
                pause_s = _REFRESH_S if self._succeeded else self._retry_s
                self._changed.wait_for(
                    lambda: self._requested > self._started or self._closed, pause_s
                )

    def _try_fetch(self) -> None:
        try:
            keys = self._fetch()
        except OrdersError as error:
            self._succeeded = False
            _log.warning("issuer_keys.not_fetched", error=str(error))
            return
        self._succeeded = True  # before the keys: a request that sees them may share a fetch
        self._keys = keys


class FetchedOnce:
    """A check that fails until the keys were fetched once; from then on it passes."""

    def __init__(self, fetch: Callable[[], KeySet]) -> None:
        self._fetch, self._fetched = fetch, False

    def __call__(self) -> None:
        """Fetch the keys, unless it has succeeded before. Raises Transient, InvalidAnswer."""
        if not self._fetched:
            self._fetch()
            self._fetched = True


def jwks(url: str, algorithms: Iterable[str]) -> Callable[[], KeySet]:
    """Return a function that fetches a JWKS URL, limited in time and size. Call it after fork."""
    parts = urlsplit(url)
    path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    policy = msgspec.structs.replace(
        UpstreamPolicy().within(_FETCH_BUDGET_S), response_limit_bytes=_LIMIT_BYTES
    )
    upstream = Upstream("issuer", f"{parts.scheme}://{parts.netloc}", policy)
    request = HttpRequest("GET", path, "/jwks")
    names = tuple(algorithms)
    return lambda: upstream.call(request, lambda reply: _read(reply, names))


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
