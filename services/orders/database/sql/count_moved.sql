-- How many of the orders that were emitted again have moved since.
SELECT count(*) FROM unnest(%(orders)s::bigint [], %(versions)s::integer []) AS e (id, version)
INNER JOIN orders AS o ON o.id = e.id
WHERE o.version <> e.version OR (
    o.status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
    AND o.reservation <> 'held'
    AND o.refunded = o.refund_requested
    AND NOT (o.reservation = 'committed' AND o.status = 'Refunded')
)
