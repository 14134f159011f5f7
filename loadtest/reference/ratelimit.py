"""The rate limit: the service's own script, in one round trip with a read."""

import hashlib
import math
from typing import Any

from redis.asyncio import Redis

from loadtest.reference.settings import Settings
from orders.api.ratelimit_windows import Window, script, wait_ms, weighted


class TooMany(Exception):
    """Answer 429; `fields` are the headers."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__("rate limited")
        self.fields = fields


class RateLimiter:
    """Counts requests of principals."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._limit, self._window_s = redis, settings.limit, settings.window_s
        self._sha = hashlib.sha1(script(), usedforsecurity=False).hexdigest()
        self._policy = f'"default";q={settings.limit};w={settings.window_s}'

    async def open(self) -> None:
        """Load the limiter's script into Redis."""
        await self._redis.script_load(script())

    async def count(
        self, principal: str, read_key: str | None = None
    ) -> tuple[dict[str, str], Any]:
        """Count a request; return the headers, and the value of `read_key`. Raises TooMany."""
        pipeline = self._redis.pipeline(transaction=False)
        key = f"reference:limit:{principal}"
        pipeline.evalsha(self._sha, 1, key, self._limit, self._window_s * 1000, 1)
        if read_key is not None:
            pipeline.get(read_key)
        (is_allowed, *counts), *read_values = await pipeline.execute()
        fields = self._fields(Window(*counts), is_allowed=bool(is_allowed))
        if not is_allowed:
            raise TooMany(fields)
        return fields, read_values[0] if read_values else None

    def _fields(self, window: Window, *, is_allowed: bool) -> dict[str, str]:
        window_ms = self._window_s * 1000
        remaining = max(0, self._limit - weighted(window, window_ms)) if is_allowed else 0
        until_ms = window.left_ms if remaining else wait_ms(window, self._limit, window_ms)
        seconds = min(max(1, math.ceil(until_ms / 1000)), self._window_s)
        fields = {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"default";r={remaining};t={seconds}',
        }
        return fields if is_allowed else fields | {"Retry-After": str(seconds)}
