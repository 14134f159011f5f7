-- One page of a user's orders, newest first, after the row (created_at, id) of the page before.
SELECT
    id, user_id, product_id, quantity, total, status, version, created_at, updated_at, status_reason
FROM orders
WHERE user_id = %(user_id)s AND (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s OFFSET %(offset)s
