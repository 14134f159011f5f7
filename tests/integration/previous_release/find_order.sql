SELECT
    id, user_id, product_id, quantity, total, status, version, created_at, updated_at, status_reason
FROM orders
WHERE id = %(id)s
