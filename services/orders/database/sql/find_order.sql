SELECT
    id, user_id, product_id, quantity, total, status, version, created_at, updated_at, status_reason,
    cancel_requested, nullif(refunded, 0) AS refunded, refund_requested > refunded AS refund_pending
FROM orders
WHERE id = %(id)s
