-- Which dead letters ask for nothing any more: their order has ended and owes nothing, or the notification
-- they stand for was sent. Returns their numbers.
SELECT l.number
FROM unnest(
    %(numbers)s::integer [], %(orders)s::bigint [], %(types)s::text [], %(notify)s::boolean []
) AS l (number, order_id, type, notify)
INNER JOIN orders AS o ON o.id = l.order_id
LEFT JOIN notifications AS n ON l.notify AND n.order_id = l.order_id AND n.template = l.type
WHERE CASE
    WHEN l.notify THEN n.sent_at IS NOT NULL
    ELSE
        o.status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
        AND o.reservation <> 'held'
        AND o.refunded = o.refund_requested
        AND NOT (o.reservation = 'committed' AND o.status = 'Refunded')
END
