-- Orders that need a person: work that was emitted again and again changed nothing, or Payment declined to
-- pay back. Those that wait for longest come first.
WITH deadlines AS (
    SELECT * FROM unnest(%(statuses)s::text [], %(stalls)s::integer []) AS d (status, stalls)
),
stuck AS (
    SELECT s.order_id, s.stalls, s.last_at FROM stalled_orders AS s
    INNER JOIN orders AS o ON o.id = s.order_id AND o.version = s.version
    INNER JOIN deadlines AS d ON d.status = o.status
    WHERE s.stalls >= d.stalls AND (
        o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
        OR o.reservation = 'held'
        OR o.refunded < o.refund_requested
        OR (o.reservation = 'committed' AND o.status = 'Refunded')
    )
    UNION
    SELECT o.id, coalesce(s.stalls, 0), s.last_at FROM orders AS o
    LEFT JOIN stalled_orders AS s ON s.order_id = o.id AND s.version = o.version
    WHERE o.status = 'Refunding' AND o.status_reason = 'RefundDeclined'
),
declined AS (
    -- Of orders that stay Completed: a part that support asked for.
    SELECT o.id FROM orders AS o
    WHERE o.status = 'Completed' AND o.id IN (
        SELECT order_id FROM payment_attempts
        WHERE kind = 'refund' AND outcome = 'declined' AND reason = 'RefundDeclined'
    )
),
listed AS (
    SELECT order_id, stalls, last_at FROM stuck
    UNION ALL
    SELECT id, 0, NULL FROM declined WHERE id NOT IN (SELECT order_id FROM stuck)
)
SELECT
    o.id, o.status,
    coalesce(o.status_reason, CASE WHEN o.id IN (SELECT id FROM declined) THEN 'RefundDeclined' END),
    o.reservation, o.total, o.updated_at, listed.stalls, listed.last_at,
    (
        SELECT jsonb_agg(jsonb_build_object(
            'id', a.id, 'kind', a.kind, 'amount', a.amount, 'outcome', a.outcome
        ))
        FROM (
            SELECT id, kind, amount, outcome FROM payment_attempts
            WHERE order_id = o.id AND kind = 'capture' AND outcome IN ('unknown', 'approved')
            UNION ALL
            SELECT id, kind, amount, outcome FROM payment_attempts
            WHERE order_id = o.id AND kind = 'refund'
        ) AS a
    )::text AS attempts
FROM listed
INNER JOIN orders AS o ON o.id = listed.order_id
ORDER BY o.updated_at, o.id
LIMIT %(limit)s
