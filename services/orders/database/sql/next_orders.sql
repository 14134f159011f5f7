-- The next orders by id, and when they were taken.
SELECT id, created_at FROM orders WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
