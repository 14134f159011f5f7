INSERT INTO reconciliation_cases (order_id, kind, detail)
SELECT order_id, 'notification_missing', 'not sent' FROM unnest(%(orders)s::bigint []) AS o (order_id)
ON CONFLICT DO NOTHING
