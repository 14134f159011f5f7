-- Emits work again for orders that sit in a status, or hold stock after their end, for too long.
-- `emitted_at` moves, so the same order is not emitted again before another deadline has passed.
WITH stalled AS (
    SELECT id FROM orders
    WHERE (
        status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
        OR (reservation = 'held' AND status IN ('Completed', 'Failed', 'Cancelled', 'Refunded'))
    )
    AND emitted_at < now() - make_interval(secs => %(after_s)s)
    ORDER BY emitted_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
touched AS (
    UPDATE orders SET emitted_at = now()
    FROM stalled
    WHERE orders.id = stalled.id
    RETURNING orders.id, version, status, correlation_id, traceparent
)
INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
SELECT
    id::text, 'order.stalled.v1',
    jsonb_build_object('orderId', id, 'version', version, 'status', status),
    correlation_id, traceparent
FROM touched
RETURNING aggregateid::bigint AS order_id
