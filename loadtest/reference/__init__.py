"""Three requests of the order path on FastAPI, asyncpg and redis.asyncio, for `make bench`.

Written as the best users of these libraries would, and of equal work: the same SQL statements, the
same script for the rate limit, the same checks of a request, one log line, one counter and one
histogram for each. It is a yardstick: no idempotency keys, no cursors, no fallback without Redis.
"""
