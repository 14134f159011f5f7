-- Holds one page of Payment's ledger against orders and attempts. Returns the orders that the page does
-- not agree with; `under_way` ones are looked at again when they have ended.
WITH entries AS (
    SELECT * FROM unnest(
        %(orders)s::bigint [], %(attempts)s::uuid [], %(kinds)s::text [], %(amounts)s::numeric [],
        %(statuses)s::text []
    ) AS e (order_id, attempt_id, kind, amount, status)
),
compared AS (
    SELECT
        e.order_id,
        coalesce(o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding'), false) AS under_way,
        o.id IS NULL
        OR a.id IS NULL
        OR (a.order_id, a.kind, a.amount) IS DISTINCT FROM (e.order_id, e.kind, e.amount) AS stray,
        a.outcome IS DISTINCT FROM CASE e.status WHEN 'declined' THEN 'declined' ELSE 'approved' END
        OR (e.status = 'captured' AND o.status IN ('Failed', 'Cancelled'))
        OR (
            e.kind = 'refund' AND e.status = 'refunded'
            AND o.refunded < (
                SELECT sum(r.amount) FROM payment_attempts AS r
                WHERE r.order_id = e.order_id AND r.kind = 'refund' AND r.outcome = 'approved'
            )
        ) AS differs
    FROM entries AS e
    LEFT JOIN orders AS o ON o.id = e.order_id
    LEFT JOIN payment_attempts AS a ON a.id = e.attempt_id
)
SELECT
    order_id,
    bool_or(stray OR (differs AND NOT under_way)) AS suspect,
    bool_or(under_way) AS under_way
FROM compared
WHERE stray OR differs OR under_way
GROUP BY order_id
