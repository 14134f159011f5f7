"""The application: `uvicorn loadtest.reference.app:app --loop uvloop --http httptools`."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from redis.asyncio import Redis

from loadtest.reference import database, settings
from loadtest.reference.observed import TelemetryMiddleware
from loadtest.reference.orders import MAX_ID, NewOrder, accepted, cursor, encoded, view
from loadtest.reference.ratelimit import RateLimiter, TooMany
from loadtest.reference.stock import Stock
from orders.domain.lifecycle import TERMINAL

_JSON: Final = "application/json"
_PRIVATE: Final = {"Cache-Control": "private, no-cache"}
_NO_STORE: Final = {"Cache-Control": "no-store"}
_TTL_MS: Final = 300_000
_LIVE_TTL_MS: Final = 2_000
_CACHE: Final = "orders:order:"  # the service's own keys

PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


@contextlib.asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    state, options = app.state, settings.load()
    state.settings = options
    state.redis = Redis.from_url(options.redis_url)
    state.limiter, state.stock = RateLimiter(state.redis, options), Stock(options.inventory_url)
    await state.limiter.open()
    state.pool = await database.connect(options)
    yield
    await state.pool.close()
    await state.redis.aclose()
    await state.stock.close()


api: Final = FastAPI(lifespan=_running, docs_url=None, redoc_url=None, openapi_url=None)
app: Final = TelemetryMiddleware(api)


@api.post("/api/orders")
async def create(order: NewOrder, request: Request) -> Response:
    """Accept an order: checks, limit, stock, one commit."""
    state, ids = request.app.state, request.state.ids
    principal = f"user:{order.user_id}"
    fields, _ = await state.limiter.count(principal)
    if await state.stock.insufficient(order.product_id, order.quantity):
        return _problem(request, 400, "Insufficient inventory", fields)
    values = {
        "principal": principal, "route": "POST /api/orders", "key": None, "fingerprint": b"",
        "body": "", "location": "", "etag": '"v1"', "user_id": order.user_id,
        "product_id": order.product_id, "quantity": order.quantity, "total": order.total,
        "payment_method": order.payment_method, "correlation_id": ids.correlation_id,
        "traceparent": ids.traceparent, "trace_id": ids.trace_id,
    }  # fmt: skip
    [(order_id, _)] = await database.rows(state.pool, "accept_order", values)
    order_fields = {"Location": f"/api/orders/{order_id}", "ETag": '"v1"'}
    return Response(accepted(order_id), 202, fields | order_fields | _NO_STORE, _JSON)


@api.get("/api/orders/{order_id}")
async def show(order_id: PathId, request: Request) -> Response:
    """Show an order, from Redis if it is there."""
    state = request.app.state
    key = f"{_CACHE}{order_id}"
    fields, stored = await state.limiter.count(_address(request), key)
    if stored is None:
        stored = await _fetch(state, order_id, key)
    if stored is None:
        return _problem(request, 404, "There is no such order.", fields)
    version, _, _, body = stored.split(b" ", 3)
    tag = f'"v{int(version)}"'
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, fields | {"ETag": tag} | _PRIVATE)
    return Response(body, 200, fields | {"ETag": tag} | _PRIVATE, _JSON)


async def _fetch(state: Any, order_id: int, key: str) -> bytes | None:
    rows = await database.rows(state.pool, "find_order", {"id": order_id})
    if not rows:
        return None
    row = rows[0]
    is_final = row["status"] in TERMINAL
    record = b"%d %d %d %b" % (row["version"], row["user_id"], is_final, encoded(view(row)))
    await state.redis.set(key, record, px=_TTL_MS if is_final else _LIVE_TTL_MS, nx=True)
    return record


@api.get("/api/orders/user/{user_id}")
async def listed(
    user_id: PathId,
    request: Request,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100, alias="pageSize")] = 20,
) -> Response:
    """List a user's orders, newest first."""
    state = request.app.state
    fields, _ = await state.limiter.count(f"user:{user_id}")
    values = {
        "user_id": user_id, "before_at": database.NEWEST_AT, "before_id": MAX_ID,
        "limit": page_size + 1, "offset": (page - 1) * page_size,
    }  # fmt: skip
    rows = await database.rows(state.pool, "list_orders", values)
    views = [view(row) for row in rows[:page_size]]
    if len(rows) > page_size:
        key = state.settings.cursor_key
        sealed = cursor(views[-1].created_at, views[-1].id, user_id, key)
        target = f"/api/orders/user/{user_id}?cursor={sealed}&pageSize={page_size}"
        fields["Link"] = f'<{target}>; rel="next"'
    return Response(encoded(views), 200, fields | _PRIVATE, _JSON)


@api.exception_handler(TooMany)
async def _too_many(request: Request, error: TooMany) -> Response:
    return _problem(request, 429, "Rate limit exceeded. Please retry later.", error.fields)


@api.exception_handler(RequestValidationError)
async def _invalid(request: Request, _error: RequestValidationError) -> Response:
    return _problem(request, 400, "The request is not valid.", {})


def _problem(request: Request, status: int, detail: str, fields: dict[str, str]) -> Response:
    ids = request.state.ids
    problem = {
        "type": "about:blank", "status": status, "detail": detail, "error": detail,
        "correlationId": ids.correlation_id, "traceId": ids.trace_id,
    }  # fmt: skip
    body = msgspec.json.encode(problem)
    return Response(body, status, fields | _NO_STORE, "application/problem+json")


def _address(request: Request) -> str:
    """Return the client's address, as the gateway reported it."""
    forwarded = request.headers.get("x-forwarded-for")
    peer = request.client.host if request.client else ""
    return f"address:{forwarded.rpartition(',')[2].strip() if forwarded else peer}"
