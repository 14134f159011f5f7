-- Orders that have not ended, by status, and for how long the oldest has been there: the partial index
-- holds only these, so few rows are read.
SELECT status, count(*), greatest(extract(epoch FROM now() - min(updated_at)), 0)::float
FROM orders
WHERE status IN ('Pending', 'Reserved', 'Charging', 'Refunding')
GROUP BY status
