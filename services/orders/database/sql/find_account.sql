-- An order as far as its money goes: what may still be asked back, and how many refunds were begun.
SELECT
    o.id, o.user_id, o.product_id, o.quantity, o.total, o.status, o.version, o.created_at, o.updated_at,
    o.status_reason, o.cancel_requested, nullif(o.refunded, 0) AS refunded,
    o.nonce, o.total - o.refund_requested AS left_over,
    (
        SELECT coalesce(max(number), 0) FROM payment_attempts
        WHERE order_id = o.id AND kind = 'refund'
    ) AS refunds
FROM orders AS o
WHERE o.id = %(id)s
