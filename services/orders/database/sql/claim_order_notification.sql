-- Reserves an order's next notification for one sender: the earliest that was not sent. No row while
-- that one waits for a later try, or another sender has it.
WITH next AS (
    SELECT order_id, template FROM notifications
    WHERE order_id = %(order_id)s AND sent_at IS NULL AND ended_at IS NULL
    ORDER BY coalesce(version, 0), template
    LIMIT 1
    FOR UPDATE
)
UPDATE notifications AS n SET claimed_until = now() + make_interval(secs => %(claim_s)s)
FROM next
WHERE n.order_id = next.order_id AND n.template = next.template
AND n.claimed_until <= now() AND (n.tries = 0 OR n.next_at <= now())
RETURNING
    n.order_id, n.template, n.message_id, n.version, n.status, n.reason, n.correlation_id,
    n.traceparent, n.tries, extract(epoch FROM now() - n.queued_at)::float
