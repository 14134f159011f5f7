-- An order's transitions, oldest first, if the order belongs to who asks.
SELECT h.from_status, h.to_status, coalesce(h.note, h.reason), h.actor, h.at, h.trace_id
FROM orders AS o
INNER JOIN order_history AS h ON h.order_id = o.id
WHERE o.id = %(id)s AND (%(everyones)s OR o.user_id::text = %(subject)s::text)
ORDER BY h.version
