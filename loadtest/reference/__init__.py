"""Three requests of the order path on FastAPI, asyncpg and redis.asyncio, for `make bench`.

It uses these libraries as their documentation recommends. It does the same work for each request:
the same SQL statements, the same script for the rate limit, the same checks, one log line, one
counter and one histogram. It lacks idempotency keys, cursors, and a fallback without Redis.
"""
