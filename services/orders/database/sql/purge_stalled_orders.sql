-- Forgets orders that moved, settled what they owed, or are gone.
DELETE FROM stalled_orders
WHERE ctid = ANY (ARRAY(
    SELECT s.ctid FROM stalled_orders AS s
    LEFT JOIN orders AS o ON o.id = s.order_id AND o.version = s.version
    WHERE o.id IS NULL OR (
        o.status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
        AND o.reservation <> 'held'
        AND o.refunded = o.refund_requested
        AND NOT (o.reservation = 'committed' AND o.status = 'Refunded')
    )
    LIMIT %(limit)s
    FOR UPDATE OF s SKIP LOCKED
))
