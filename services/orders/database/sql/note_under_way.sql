-- Remembers orders that have not ended, to be looked at when they have.
INSERT INTO reconciliation_cases (order_id, kind)
SELECT order_id, 'under_way' FROM unnest(%(orders)s::bigint []) AS o (order_id)
ON CONFLICT DO NOTHING
