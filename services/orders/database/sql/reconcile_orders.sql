-- Looks at some orders as far as the database alone can tell. Returns a row for each that still exists:
-- whether it is under way, whether something about it is odd, and the capture that must be in the ledger.
SELECT
    o.id,
    o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding') AS under_way,
    CASE
        -- Only these can have a call outside whose outcome is unknown.
        WHEN o.status IN ('Charging', 'Refunding')
            THEN o.updated_at < now() - make_interval(secs => %(under_way_s)s)
        WHEN o.status IN ('Pending', 'Reserved') THEN false
        ELSE
            o.reservation = 'held'
            OR (o.status = 'Refunded' AND o.reservation = 'committed')
            OR o.refunded < o.refund_requested
            OR (o.status IN ('Completed', 'Refunded')) <> coalesce(c.outcome = 'approved', false)
    END AS suspect,
    -- A row that waits for a further try is the notifier's business.
    o.status NOT IN ('Pending', 'Reserved', 'Charging', 'Refunding')
    AND n.sent_at IS NULL
    AND (n.order_id IS NULL OR to_jsonb(n) ->> 'outcome' = 'given_up') AS unnotified,
    CASE WHEN o.status = 'Completed' THEN c.id END AS captured_by
FROM unnest(%(orders)s::bigint []) AS wanted (id)
INNER JOIN orders AS o ON o.id = wanted.id
LEFT JOIN payment_attempts AS c
    ON c.order_id = o.id AND c.kind = 'capture' AND c.outcome IN ('unknown', 'approved')
LEFT JOIN notifications AS n
    ON n.order_id = o.id AND n.template = 'order.' || lower(o.status) || '.v1'
ORDER BY o.id
