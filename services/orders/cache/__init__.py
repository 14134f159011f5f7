"""Orders kept close to their readers: in the process (L1) and in Redis (L2), never older again.

Also the Redis client, and the marks of who wrote a moment ago. All of it works without Redis.
"""

from orders.imports import without

# The meters of redis-py stay off, their SDK would only be imported.
with without("opentelemetry.sdk.metrics"):
    import redis  # noqa: F401 imported to be there
