-- Remembers orders that there was no time to judge; the next run begins with them.
INSERT INTO reconciliation_cases (order_id, kind, checked_at)
SELECT order_id, 'suspect', '-infinity' FROM unnest(%(orders)s::bigint []) AS o (order_id)
ON CONFLICT DO NOTHING
