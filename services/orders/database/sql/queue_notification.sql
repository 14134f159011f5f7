-- Writes the row of a message that came from before there were such rows. Not of an event that a failover
-- lost: its order has not come so far, and may end otherwise.
INSERT INTO notifications (
    order_id, template, message_id, tries, claimed_until, version, status, reason, correlation_id,
    traceparent
)
SELECT
    id, %(template)s, %(message_id)s, 0, '-infinity', %(version)s, %(status)s, %(reason)s,
    %(correlation_id)s, %(traceparent)s
FROM orders
WHERE id = %(order_id)s AND version >= %(version)s
ON CONFLICT DO NOTHING
RETURNING order_id
