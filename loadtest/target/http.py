"""Ask a service for JSON: simulators, the broker's management, the API when it is inspected."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import urllib3

T = TypeVar("T")
_POOL: Final = urllib3.PoolManager(
    maxsize=16,
    retries=urllib3.Retry(
        total=None, connect=2, read=2, other=0, redirect=2,
        # Over the limit: ask again when told. An address may have to wait for a minute, many times.
        status=20, status_forcelist={429}, raise_on_status=False,
        backoff_factor=0.2, allowed_methods={"GET", "PUT", "DELETE"},
    ),
    timeout=urllib3.Timeout(connect=3, read=30),
)  # fmt: skip


class Unreachable(Exception):
    """The service did not answer, or its answer was not the expected one."""


class Absent(Unreachable):
    """The service answered 404."""


def send(
    method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Send JSON and give the body of a 2xx answer; a user in the address is sent as such.

    Raises Unreachable, Absent.
    """
    bare, login = _login(url)
    raw = None if body is None else msgspec.json.encode(body)
    content = {"Content-Type": "application/json"} if raw is not None else {}
    try:
        answer = _POOL.request(
            method, bare, body=raw, headers=login | content | dict(headers or {})
        )
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"{method} {bare}: {error}") from error
    if not 200 <= answer.status < 300:
        error_type = Absent if answer.status == 404 else Unreachable
        raise error_type(f"{method} {bare}: {answer.status}")
    return answer.data


def _login(url: str) -> tuple[str, dict[str, str]]:
    address = urlsplit(url)
    if not address.username:
        return url, {}
    login = f"{unquote(address.username)}:{unquote(address.password or '')}"
    login_headers: dict[str, str] = dict(urllib3.make_headers(basic_auth=login))
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl(), login_headers


def get(url: str, kind: type[T], headers: Mapping[str, str] | None = None) -> T:
    """Ask for JSON of a kind. Raises Unreachable."""
    answer = send("GET", url, headers=headers)
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"GET {_login(url)[0]}: {error}") from error


def put(url: str, body: Any) -> None:
    """Replace something. Raises Unreachable."""
    send("PUT", url, body)
