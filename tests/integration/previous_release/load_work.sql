-- What the worker must know of an order to take its next step, and whether the message is new.
SELECT
    o.id, o.user_id, o.product_id, o.quantity, o.total, o.payment_method, o.status, o.version,
    o.status_reason, o.cancel_requested, o.reservation, o.created_at, o.updated_at,
    a.id AS attempt_id,
    EXISTS (
        SELECT FROM processed_messages
        WHERE consumer = %(consumer)s AND message_id = %(message_id)s
    ) AS processed
FROM orders AS o
LEFT JOIN payment_attempts AS a
    ON a.order_id = o.id AND a.kind = 'capture' AND a.outcome IN ('unknown', 'approved')
WHERE o.id = %(id)s
