"""Caches orders in the process (L1) and in Redis (L2).

Also has the Redis client, and the marks of users who wrote a moment ago. All of it works without
Redis, only more slowly.
"""

from orders.imports import defer, without

# redis-py's __init__ imports all of its clients, asyncio's too. A connection needs none of them.
defer("redis")
# We do not use redis-py's metrics, so do not let it import their SDK.
with without("opentelemetry.sdk.metrics"):
    import redis.connection  # noqa: F401 so that later imports find it loaded
