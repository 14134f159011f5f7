"""The simulators' common HTTP code: strict JSON in, JSON out, errors with a code, a log line."""

import time
from decimal import Decimal
from typing import Any, Final, TypeVar

import falcon
import msgspec
import structlog

from upstreams import logs

BODY_LIMIT_BYTES: Final = 64 * 1024  # the same as the order API's own
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 500: "internal"}
MAX_ID: Final = 2**53 - 1  # the largest integer every JSON reader keeps exact

T = TypeVar("T")

# Decimals are written as numbers: money is 19.90, never "19.90" and never a float.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_log = structlog.get_logger()


class Refusal(Exception):
    """Answer with `status` and a machine-readable code; nothing was changed."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail


def body(req: falcon.Request, kind: type[T]) -> T:
    """Decode a request's JSON body. Raises Refusal with 413 or 400."""
    return _decode(_raw(req), kind)


def optional_body(req: falcon.Request, default: T) -> T:
    """Decode a request's JSON body as the type of `default`, which stands for an empty one."""
    raw = _raw(req)
    return _decode(raw, type(default)) if raw else default


def _raw(req: falcon.Request) -> bytes:
    # `req.stream`, not `bounded_stream`: that one is empty for a chunked body.
    raw: bytes = req.stream.read(BODY_LIMIT_BYTES + 1)
    if len(raw) > BODY_LIMIT_BYTES:
        raise Refusal(413, "too_large", f"at most {BODY_LIMIT_BYTES} bytes")
    return raw


def _decode(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid", str(error)) from error


def answer(resp: falcon.Response, content: object, status: int = 200) -> None:
    """Answer with `content` as JSON."""
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encoder.encode(content)


def money(literal: msgspec.Raw) -> Decimal:
    """Read a JSON number as money without passing through a float. Raises Refusal."""
    text = bytes(literal)
    try:
        amount = msgspec.json.decode(text, type=Decimal)
    except msgspec.MsgspecError as error:
        raise Refusal(400, "invalid", f"{error} - at `$.amount`") from error
    if text.startswith(b'"') or not 0 < amount < Decimal(10) ** 12:
        raise Refusal(400, "invalid", "expected a number above 0 - at `$.amount`")
    cents = amount.quantize(Decimal("0.01"))
    if cents != amount:
        raise Refusal(400, "invalid", "expected at most two decimals - at `$.amount`")
    return cents


class RequestLog:
    """Write a line per business request, with its correlation id and trace."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Note when the request came."""
        req.context.started = time.monotonic()

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        _resource: object,
        _succeeded: bool,  # noqa: FBT001 falcon's signature
    ) -> None:
        """Write the line; probes and the control API are not worth one."""
        if req.path == "/livez" or req.path.startswith("/control/"):
            return
        _log.info(
            "request.handled",
            method=req.method,
            path=req.path,
            status=resp.status_code,
            fault=req.context.get("fault"),
            durationMs=round((time.monotonic() - req.context.started) * 1000, 1),
            **logs.ids(req),
        )


class Livez:
    """`GET /livez`: the process serves."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 as long as the process serves requests."""
        answer(resp, {"status": "ok"})


def app(*middleware: Any) -> falcon.App[falcon.Request, falcon.Response]:
    """Make an application that answers every error as JSON; the first middleware is outermost."""
    application = falcon.App(middleware=[RequestLog(), *middleware])
    application.add_error_handler(Refusal, _refuse)
    application.set_error_serializer(_serialize)
    application.add_route("/livez", Livez())
    return application


def _refuse(
    _req: falcon.Request, resp: falcon.Response, error: Refusal, _params: dict[str, Any]
) -> None:
    content = {"error": error.code}
    if error.detail:
        content["detail"] = error.detail
    answer(resp, content, error.status)


def _serialize(_req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    code = _CODES.get(error.status_code, "invalid")
    answer(resp, {"error": code, "detail": error.description or ""}, error.status_code)


def is_control(req: falcon.Request) -> bool:
    """Tell whether a request is about the simulator itself: scripts and probes always work."""
    return req.path == "/livez" or req.path.startswith("/control/")
