-- Where a page by number begins: the last of the first orders of a user, from the index alone.
SELECT created_at, id
FROM orders
WHERE user_id = %(user_id)s
ORDER BY created_at DESC, id DESC
LIMIT 1 OFFSET %(before)s
