"""The API as a web application: authentication, discovery, values."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from orderservice_operator.children.context import METRICS_GROUP, QUEUE_METRIC
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.scaling import metric_labels
from orderservice_operator.errors import OperatorError, Permanent
from orderservice_operator.external_metrics import documents, selectors
from orderservice_operator.external_metrics.documents import Series
from orderservice_operator.resource.spec import OrderService

_ROOT: Final = f"/apis/{METRICS_GROUP}"
_VERSION: Final = f"/apis/{documents.GROUP_VERSION}"
_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ReadSeries = Callable[[Iterable[OrderService]], Awaitable[list[Series]]]
CertificateCheck = Callable[[Any], str | None]  # why a certificate is refused


class HttpError(Exception):
    """Answer with this status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def application(
    services: Callable[[], Iterable[OrderService]],
    read_series: ReadSeries,
    refusal: CertificateCheck,
    count: Callable[[int], None],
) -> web.Application:
    """Return the API. `refusal` judges a certificate; `count` gets the status of each answer."""

    async def value(request: web.Request) -> web.Response:
        service = _selected(services(), request)
        try:
            return _json(documents.values(await read_series(service)))
        except OperatorError as error:
            raise HttpError(503, f"unable to read the depth of the queue: {error}") from error

    app = web.Application(middlewares=[_guarded(refusal, count)])
    app.add_routes(
        [
            web.get(_ROOT, _document(documents.group())),
            web.get(_VERSION, _document(documents.resources())),
            web.get(f"{_VERSION}/namespaces/{{namespace}}/{{metric}}", value),
        ]
    )
    return app


def _guarded(refusal: CertificateCheck, count: Callable[[int], None]) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _authenticate(request, refusal)
            answer = await handler(request)
        except HttpError as error:
            answer = _failed(error.code, str(error))
        except web.HTTPException as error:
            answer = _failed(error.status, f"{request.method} {request.path}: {error.reason}")
        except Exception:  # noqa: BLE001 every error becomes an answer that Kubernetes can read
            _log.exception("external_metrics.crashed", path=request.path)
            answer = _failed(500, "internal error")
        count(answer.status)
        return answer

    return middleware


def _authenticate(request: web.Request, refusal: CertificateCheck) -> None:
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    if reason := refusal(certificate):
        raise HttpError(401, reason)


def _selected(services: Iterable[OrderService], request: web.Request) -> list[OrderService]:
    namespace, metric = request.match_info["namespace"], request.match_info["metric"]
    if metric != QUEUE_METRIC:
        raise HttpError(404, f"there is no metric {metric}, only {QUEUE_METRIC}")
    try:
        requirements = selectors.requirements(request.query.get("labelSelector", ""))
    except Permanent as error:
        raise HttpError(400, str(error)) from error
    return [
        service
        for service in services
        if service.metadata.namespace == namespace
        and all(requirement(metric_labels(service)) for requirement in requirements)
    ]


def _document(content: Manifest) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return _json(content)

    return answer


def _failed(code: int, message: str) -> web.Response:
    return _json(documents.failure(code, message), code)


def _json(content: Manifest, status: int = 200) -> web.Response:
    body = msgspec.json.encode(content)
    return web.Response(body=body, status=status, content_type="application/json")
