-- How many orders need a person, by status.
WITH deadlines AS (
    SELECT * FROM unnest(%(statuses)s::text [], %(stalls)s::integer []) AS d (status, stalls)
),
stuck AS (
    SELECT o.id, o.status FROM stalled_orders AS s
    INNER JOIN orders AS o ON o.id = s.order_id AND o.version = s.version
    INNER JOIN deadlines AS d ON d.status = o.status
    WHERE s.stalls >= d.stalls AND (
        o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
        OR o.reservation = 'held'
        OR o.refunded < o.refund_requested
        OR (o.reservation = 'committed' AND o.status = 'Refunded')
    )
    UNION
    SELECT id, status FROM orders WHERE status = 'Refunding' AND status_reason = 'RefundDeclined'
    UNION
    SELECT o.id, o.status FROM payment_attempts AS a
    INNER JOIN orders AS o ON o.id = a.order_id
    WHERE a.kind = 'refund' AND a.outcome = 'declined' AND a.reason = 'RefundDeclined'
    AND o.status = 'Completed'
)
SELECT status, count(*) FROM stuck GROUP BY status
