-- Ended orders by status, counted; for a table that is small.
SELECT status, count(*) FROM orders
WHERE status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
GROUP BY status
