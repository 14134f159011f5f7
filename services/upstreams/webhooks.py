"""A receiver of webhooks that accepts only signatures after Standard Webhooks.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import falcon
import msgspec

from upstreams import control, logs
from upstreams.control import RowsResource
from upstreams.faults import FaultMiddleware, Script, Stop
from upstreams.settings import SettingError, Settings
from upstreams.web import BODY_LIMIT_BYTES, Refusal, answer, app

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 not a secret


class Delivery(msgspec.Struct, rename="camel"):
    """A webhook that came; `calls` counts how often it came under the same id."""

    webhook_id: str
    timestamp: int
    payload: Any
    correlation_id: str | None
    traceparent: str | None
    calls: int
    at: dt.datetime


class Inbox:
    """Every delivery, one row per webhook id, and how many were not believed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, Delivery] = {}
        self._refused: Counter[str] = Counter()

    def add(self, delivery: Delivery) -> None:
        """Record a delivery, or count it if its id is known."""
        with self._lock:
            self._rows.setdefault(delivery.webhook_id, delivery).calls += 1

    def refuse(self, reason: str) -> None:
        """Count a webhook that is not believed."""
        with self._lock:
            self._refused[reason] += 1

    def refused(self) -> dict[str, int]:
        """Return how many were not believed, by reason."""
        with self._lock:
            return dict(self._refused)

    def reset(self) -> None:
        """Delete all deliveries and the counts of refused ones."""
        with self._lock:
            self._rows.clear()
            self._refused.clear()

    def rows(self) -> list[Delivery]:
        """Return a copy of every delivery, in the order they first came."""
        with self._lock:
            return [msgspec.structs.replace(row) for row in self._rows.values()]


class WebhooksResource:
    """Receiver of webhooks: `POST /webhooks`."""

    def __init__(self, inbox: Inbox, keys: Sequence[bytes], tolerance_s: int) -> None:
        self._inbox, self._keys, self._tolerance_s = inbox, keys, tolerance_s

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Record a delivery if its signature holds."""
        raw = req.stream.read(BODY_LIMIT_BYTES + 1)
        if len(raw) > BODY_LIMIT_BYTES:
            raise Refusal(413, "too_large")
        webhook_id = req.get_header("webhook-id") or ""
        try:
            timestamp = self._verify(req, webhook_id, raw)
        except Refusal as refusal:
            self._inbox.refuse(refusal.code)
            raise
        ids = logs.ids(req)
        self._inbox.add(
            Delivery(
                webhook_id, timestamp, _payload(raw),
                ids.get("correlationId"), ids.get("traceparent"), 0, dt.datetime.now(dt.UTC),
            )
        )  # fmt: skip
        resp.status = 204

    def _verify(self, req: falcon.Request, webhook_id: str, raw: bytes) -> int:
        stamp = req.get_header("webhook-timestamp") or ""
        if not webhook_id or not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
            raise Refusal(400, "invalid", "webhook-id and webhook-timestamp are required")
        signatures = (req.get_header("webhook-signature") or "").split(" ")
        expected = [sign(key, webhook_id, stamp, raw) for key in self._keys]
        pairs = itertools.product(expected, signatures)
        if not any(
            hmac.compare_digest(computed.encode(), received.encode())
            for computed, received in pairs
        ):
            raise Refusal(401, "bad_signature")
        if abs(time.time() - int(stamp)) > self._tolerance_s:
            raise Refusal(401, "stale_timestamp")
        return int(stamp)


class RefusedResource:
    """Counts of refused webhooks: `GET /control/refused`."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer how many webhooks were not believed, by reason."""
        answer(resp, self._inbox.refused())


def sign(key: bytes, webhook_id: str, timestamp: str, raw: bytes) -> str:
    """Return the `v1` signature of a webhook."""
    signed = f"{webhook_id}.{timestamp}.".encode() + raw
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signing_keys(secrets: str) -> list[bytes]:
    """Return the bytes of each `whsec_…` secret, separated by spaces. Raises SettingError."""
    return [_signing_key(secret) for secret in secrets.split() or [""]]


def _signing_key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not key:
        raise SettingError("UPSTREAMS_WEBHOOK_SECRET is wrong: expected `whsec_` and base64")
    return key


def _payload(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid", str(error)) from error


def create_app(settings: Settings, stop: Stop) -> falcon.App[falcon.Request, falcon.Response]:
    """Wire the webhook receiver."""
    inbox, script = Inbox(), Script()
    application = app(FaultMiddleware(script, stop, settings.threads))
    keys = signing_keys(settings.webhook_secret)
    application.add_route("/webhooks", WebhooksResource(inbox, keys, settings.webhook_tolerance_s))
    application.add_route("/control/deliveries", RowsResource(inbox.rows))
    application.add_route("/control/refused", RefusedResource(inbox))
    control.add(application, script, inbox.reset)
    return application
