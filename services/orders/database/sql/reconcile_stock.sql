-- Holds one page of Inventory's ledger against the orders. Returns the orders that the page does not agree
-- with; `under_way` ones are looked at again when they have ended.
WITH entries AS (
    SELECT * FROM unnest(
        %(orders)s::bigint [], %(products)s::bigint [], %(quantities)s::bigint [],
        %(statuses)s::text []
    ) AS e (order_id, product_id, quantity, status)
),
compared AS (
    SELECT
        e.order_id,
        coalesce(o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding'), false) AS under_way,
        o.id IS NULL
        OR (
            e.status IN ('reserved', 'committed')
            AND (o.product_id, o.quantity::bigint) IS DISTINCT FROM (e.product_id, e.quantity)
        ) AS stray,
        CASE
            WHEN o.status = 'Completed' THEN e.status <> 'committed'
            WHEN o.status IN ('Failed', 'Cancelled', 'Refunded')
                THEN e.status IN ('reserved', 'committed')
            ELSE false
        END AS differs
    FROM entries AS e
    LEFT JOIN orders AS o ON o.id = e.order_id
)
SELECT
    order_id, bool_or(stray OR differs) AS suspect, bool_or(under_way) AS under_way
FROM compared
WHERE stray OR differs OR under_way
GROUP BY order_id
