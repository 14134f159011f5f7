-- Orders that have not ended, by status: the partial index holds only these.
SELECT status, count(*) FROM orders
WHERE status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
GROUP BY status
