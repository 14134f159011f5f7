"""Measure what one hostile request costs an api: CPU and memory, beside those of an order."""

from pathlib import Path
from typing import Final, NamedTuple

import psutil

from attack.inputs import signed
from attack.load import MIB
from attack.targets import Target, claims
from attack.wire import Wire, request

_JSON: Final = "Content-Type: application/json"
_ORDER: Final = b'{"userId":7,"productId":101,"quantity":1,"total":19.9,"paymentMethod":"card"}'
_LARGE: Final = 65_536
_BODIES: Final = {
    "64 KiB of unknown members": b"{"
    + b",".join(b'"m%05d":1' % number for number in range(5900))
    + b"}",
    "64 KiB of brackets": b"[" * _LARGE,
    "64 KiB in one string": b'{"paymentMethod":"' + b"x" * 65_000 + b'"}',
    "64 KiB of escapes": b'{"paymentMethod":"' + b"\\u0041" * 10_900 + b'"}',
    "64 KiB of digits": b'{"total":' + b"9" * 65_000 + b"}",
    "64 KiB that is no UTF-8": b"\xff" * _LARGE,
    "a body beyond the limit": b"x" * (_LARGE + 1),
}
_TIMES: Final = 40


class Cost(NamedTuple):
    """The average cost of a request."""

    cpu_ms: float
    memory_kb: float
    status: int


def measure(target: Target, times: int = _TIMES) -> dict[str, Cost]:
    """Return the cost of each hostile request, an order's and a read's before them."""
    wire = Wire(target.api.port)
    (worker,) = target.workers()
    try:
        return {
            name: _cost(wire, worker, message, times) for name, message in _requests(target).items()
        }
    finally:
        wire.close()


def _cost(wire: Wire, worker: psutil.Process, message: bytes, times: int) -> Cost:
    for _ in range(5):
        status = wire.ask(message).status
    cpu_ns, memory = _cpu_ns(worker.pid), worker.memory_info().rss
    for _ in range(times):
        wire.ask(message)
    spent_ns = _cpu_ns(worker.pid) - cpu_ns
    grown = worker.memory_info().rss - memory
    return Cost(spent_ns / times / 1e6, grown / times / 1000, status)


def _cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of a process that live, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def _requests(target: Target) -> dict[str, bytes]:
    fields = target.fields()
    post = [*fields, _JSON]
    return {
        "an order": request("POST", "/api/orders", post, _ORDER),
        "a read": request("GET", "/api/orders/1", fields),
        **{name: request("POST", "/api/orders", post, body) for name, body in _BODIES.items()},
        "a field repeated": request("GET", "/health", ["A: " + "x" * 60] * 100),
        "100 fields": request("GET", "/health", [f"A{n}: x" for n in range(98)]),
        "a query of 50 members": request("GET", "/api/orders/user/7?" + "a=b&" * 49, fields),
        "a query of 2 KiB": request("GET", "/api/orders/user/7?" + "a" * 2000, fields),
        "a path of 2 KiB": request("GET", "/api/orders/" + "%41" * 660, fields),
        "a token of 7 kB": _with_token("x" * 7000),
        "a token signed, of nonsense": _with_token(signed({"alg": "HS256"}, {"exp": 10**400})),
        "a token whose header is deep": _with_token("W1tb" * 1500 + ".e30.e30"),
        "a token of someone else": _with_token(
            signed({"alg": "HS256"}, claims(iss="https://other.example"))
        ),
        "tags of 4 kB": request(
            "GET", "/api/orders/1", [*fields, "If-None-Match: " + '"x",' * 1000]
        ),
        "an odd key": request(
            "POST", "/api/orders", [*post, "Idempotency-Key: " + "é" * 200], _ORDER
        ),
    }


def _with_token(text: str) -> bytes:
    return request("GET", "/api/orders/1", [f"Authorization: Bearer {text}"])


def table(costs: dict[str, dict[str, Cost]]) -> list[str]:
    """Return the costs of every target, as lines."""
    names = list(costs)
    requests = list(costs[names[0]])
    lines = [f"  {'CPU ms / kB kept / status':<30}" + "".join(f"{name:>24}" for name in names)]
    for row in requests:
        cells = [
            f"{cost.cpu_ms:.2f} / {cost.memory_kb:.1f} / {cost.status}"
            for cost in (costs[name][row] for name in names)
        ]
        lines.append(f"  {row:<30}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def dear(costs: dict[str, dict[str, Cost]], most_ms: float) -> list[str]:
    """Name the requests that cost more CPU than that, or keep memory."""
    return [
        f"{name}: {row} costs {cost.cpu_ms:.1f} ms of CPU, keeps {cost.memory_kb:.0f} kB"
        for name, rows in costs.items()
        for row, cost in rows.items()
        if cost.cpu_ms > most_ms or cost.memory_kb * _TIMES * 1000 > 5 * MIB
    ]
