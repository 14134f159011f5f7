-- Emits work again for orders that sit in a status, or owe something after their end, for too long.
-- Counts for each order how often that changed nothing. `emitted_at` moves ahead by what the next wait is
-- longer than the first, so an order that does not move is emitted more and more seldom.
WITH deadlines AS (
    SELECT * FROM unnest(%(statuses)s::text [], %(after_s)s::float [], %(longest_s)s::float [])
        AS d (status, after_s, longest_s)
),
unfinished AS (
    SELECT o.id, o.version, o.emitted_at, d.after_s, d.longest_s FROM orders AS o
    INNER JOIN deadlines AS d ON d.status = o.status
    WHERE o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
    AND o.emitted_at < now() - make_interval(secs => %(shortest_s)s)
    AND o.emitted_at < now() - make_interval(secs => d.after_s)
    ORDER BY o.emitted_at
    LIMIT %(limit)s
    FOR UPDATE OF o SKIP LOCKED
),
owing AS (
    SELECT o.id, o.version, o.emitted_at, d.after_s, d.longest_s FROM orders AS o
    INNER JOIN deadlines AS d ON d.status = o.status
    WHERE o.status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
    AND (
        o.reservation = 'held'
        OR o.refunded < o.refund_requested
        OR (o.reservation = 'committed' AND o.status = 'Refunded')
    )
    AND o.emitted_at < now() - make_interval(secs => %(shortest_s)s)
    AND o.emitted_at < now() - make_interval(secs => d.after_s)
    ORDER BY o.emitted_at
    LIMIT %(limit)s
    FOR UPDATE OF o SKIP LOCKED
),
stalled AS (
    SELECT * FROM unfinished
    UNION ALL
    SELECT * FROM owing
    ORDER BY emitted_at  -- an outage's unfinished orders do not keep back what others owe
    LIMIT %(limit)s
),
counted AS (
    INSERT INTO stalled_orders AS s (order_id, version)
    SELECT id, version FROM stalled
    ON CONFLICT (order_id) DO UPDATE SET
        version = excluded.version,
        stalls = CASE WHEN s.version = excluded.version THEN s.stalls + 1 ELSE 1 END,
        first_at = CASE WHEN s.version = excluded.version THEN s.first_at ELSE now() END,
        last_at = now()
    RETURNING s.order_id, s.stalls
),
touched AS (
    UPDATE orders AS o SET
        emitted_at = now() + make_interval(secs => greatest(
            least(stalled.after_s * 2.0 ^ least(counted.stalls, 30), stalled.longest_s)
            - stalled.after_s,
            0
        ))
    FROM stalled
    INNER JOIN counted ON counted.order_id = stalled.id
    WHERE o.id = stalled.id
    RETURNING o.id, o.version, o.status, o.correlation_id, o.traceparent
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        id::text, 'order.stalled.v1',
        jsonb_build_object('orderId', id, 'version', version, 'status', status),
        correlation_id, traceparent
    FROM touched
)
SELECT id, version FROM touched
