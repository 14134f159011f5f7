"""Bearer tokens: JSON Web Tokens, verified with the issuer's key.

As RFC 8725 demands, the algorithm is checked first: it has to be configured, `none` cannot be, and
a public key is never used as a shared secret.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import jwt
import msgspec

from orders.api.problems import UNAUTHENTICATED, Refusal
from orders.api.resource import CHALLENGE, Caller
from orders.errors import SettingError
from orders.settings import AuthSettings

_SHARED: Final = frozenset({"HS256", "HS384", "HS512"})
_PUBLIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
# How long a verified token is trusted: verification costs 60 µs with RSA and 150 µs with ECDSA.
_CACHE_S: Final = 30.0
_CACHE_TOKENS: Final = 5_000  # about 1 kB each
_SUBJECT_LIMIT: Final = 128
_MAX_TOKEN_CHARS: Final = 8_000
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_MIN_SECRET_CHARS: Final = 32  # PyJWT takes no shorter one for HS256


class Keys(Protocol):
    """Where verification keys come from: a setting, or the issuer's JWKS."""

    def find(self, key_id: str | None, algorithm: str) -> Sequence[Any]:
        """Return the keys, as PyJWT takes them, that may have signed the token."""


class ConfiguredKeys:
    """The keys of `ORDERS_AUTH_KEY`: two, while one is replaced by the other."""

    def __init__(self, text: str) -> None:
        self._keys = _keys_in(text)

    def find(self, _key_id: str | None, _algorithm: str) -> Sequence[Any]:
        """Return all keys: tokens need not name one."""
        return self._keys


def _keys_in(text: str) -> tuple[str, ...]:
    """Split a setting into PEM blocks, or into two secrets with a space between.

    If a word is too short for a secret, the text is one secret with spaces.
    """
    if blocks := tuple(block[0] for block in _PEM.finditer(text)):
        return blocks
    parts = text.split(" ")
    are_secrets = len(parts) == 2 and min(map(len, parts)) >= _MIN_SECRET_CHARS
    return tuple(parts) if are_secrets else (text,)


class TokenAuthentication:
    """Turn `Authorization: Bearer …` into a Caller."""

    def __init__(self, keys: Keys, settings: AuthSettings, claims: Iterable[str] = ()) -> None:
        """Copy the claims with these names to each caller."""
        self._keys, self._claims = keys, frozenset(claims)
        self._algorithms = accepted_algorithms(settings)
        self._issuer, self._audience = settings.issuer, settings.audience
        self._leeway_s = settings.leeway_s
        self._verified = _VerifiedTokens()

    def caller(self, authorization: str | None) -> Caller:
        """Return the token's caller. Raises Refusal, and Transient while there are no keys."""
        if authorization is None:
            raise _unauthenticated("Send a bearer token.", token_given=False)
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
            raise _unauthenticated("Send one bearer token.")
        caller = self._verified.get(token)
        if caller is None:
            caller, expires_at = self._verify(token)
            self._verified.add(token, caller, expires_at)
        return caller

    def _verify(self, token: str) -> tuple[Caller, float]:
        """Return the token's caller and the time of its expiry. Raises Refusal, Transient."""
        try:
            claims = self._decode(token)
            expires_at = float(claims["exp"])
            if expires_at <= time.time():  # no leeway here: it is for `iat` and `nbf`
                raise jwt.ExpiredSignatureError
            further = _text_claims(claims, self._claims)
            return Caller(_subject(claims), _scopes(claims), further), expires_at
        # PyJWT lets a few errors of hostile JSON through: `exp` of 1e999, deep nesting.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            expired = isinstance(error, jwt.ExpiredSignatureError)
            detail = "The token has expired." if expired else "The token is not valid."
            raise _unauthenticated(detail) from error

    def _decode(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise jwt.InvalidAlgorithmError
        refusal: jwt.PyJWTError = jwt.InvalidKeyError()
        for key in self._keys.find(header.get("kid"), algorithm):
            try:
                return self._verified_claims(key, token, algorithm)
            except (jwt.InvalidSignatureError, jwt.InvalidKeyError) as error:
                refusal = error
        raise refusal

    def _verified_claims(self, key: Any, token: str, algorithm: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway_s,
            options={
                "require": ["exp", "sub"],
                "verify_aud": self._audience is not None,
                "enforce_minimum_key_length": True,
            },
        )


def _unauthenticated(detail: str, *, token_given: bool = True) -> Refusal:
    """Refuse with the challenge of RFC 6750; no error code for a request without a token."""
    challenge = 'Bearer error="invalid_token"' if token_given else "Bearer"
    return Refusal(UNAUTHENTICATED, detail, headers=[(CHALLENGE, challenge)])


class _VerifiedTokens:
    """A cache of callers by token, up to `_CACHE_S` after the token was verified."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, token: str) -> Caller | None:
        entry = self._callers.get(token)
        return entry[0] if entry is not None and time.time() < entry[1] else None

    def add(self, token: str, caller: Caller, expires_at: float) -> None:
        until = min(expires_at, time.time() + _CACHE_S)
        with self._lock:
            self._callers.pop(token, None)
            self._callers[token] = caller, until
            if len(self._callers) > _CACHE_TOKENS:
                self._callers.popitem(last=False)


def accepted_algorithms(settings: AuthSettings) -> frozenset[str]:
    """Return the algorithms to accept. Raises SettingError for algorithms that allow forgery."""
    names = frozenset(name.strip() for name in settings.algorithms.split(",") if name.strip())
    unknown = sorted(names - _SHARED - _PUBLIC)
    if unknown or not names:
        listed = ", ".join(unknown) or "none at all"
        raise SettingError(f"ORDERS_AUTH_ALGORITHMS is wrong: {listed}; use RS256, ES256, HS256 …")
    if names & _SHARED and (names & _PUBLIC or settings.jwks_url is not None):
        raise SettingError(
            "ORDERS_AUTH_ALGORITHMS is wrong: HS* is for a shared secret in ORDERS_AUTH_KEY alone; "
            "beside public keys it would let anybody sign"
        )
    if settings.key is not None:
        _check_key(settings.key, shared=bool(names & _SHARED))
    return names


def _check_key(key: str, *, shared: bool) -> None:
    if shared and key.lstrip().startswith(("-----BEGIN", "ssh-", "ecdsa-")):
        raise SettingError("ORDERS_AUTH_KEY is a public key, but ORDERS_AUTH_ALGORITHMS is HS*")
    if not shared and "-----BEGIN" not in key:
        raise SettingError("ORDERS_AUTH_KEY is wrong: expected a public key in PEM")


def _subject(claims: dict[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_LIMIT:
        raise _unauthenticated("The token names no subject.")
    subject.encode()  # refuses a lone surrogate: UnicodeEncodeError is a ValueError
    return subject


def _text_claims(claims: dict[str, Any], names: frozenset[str]) -> dict[str, str]:
    """Return the claims with these names as text; only strings and integers count."""
    values = {name: claims.get(name) for name in names}
    texts = {name: str(value) for name, value in values.items() if type(value) in {str, int}}
    for text in texts.values():
        text.encode()  # refuses a lone surrogate, as above
    return {name: text for name, text in texts.items() if text}


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Read `scope` (RFC 8693: a string with U+0020 between) or `scp` (a list, of some issuers)."""
    claim = claims.get("scope", claims.get("scp", ""))
    try:
        words = claim.split(" ") if isinstance(claim, str) else msgspec.convert(claim, list[str])
    except msgspec.ValidationError:
        return frozenset()
    return frozenset(words) - {""}
