-- Reserves due notifications for one sender, at most one of each order: the earliest that was not sent.
-- A sender that crashed frees its own by and by.
WITH due AS (
    SELECT n.order_id, n.template FROM notifications AS n
    WHERE n.sent_at IS NULL AND n.ended_at IS NULL
    AND n.next_at <= now() AND n.claimed_until <= now()
    AND NOT EXISTS (
        SELECT FROM notifications AS earlier
        WHERE earlier.order_id = n.order_id
        AND earlier.sent_at IS NULL AND earlier.ended_at IS NULL
        AND (coalesce(earlier.version, 0), earlier.template) < (coalesce(n.version, 0), n.template)
    )
    ORDER BY n.next_at
    LIMIT %(limit)s
    FOR UPDATE OF n SKIP LOCKED
)
UPDATE notifications AS n SET claimed_until = now() + make_interval(secs => %(claim_s)s)
FROM due
WHERE n.order_id = due.order_id AND n.template = due.template
RETURNING
    n.order_id, n.template, n.message_id, n.version, n.status, n.reason, n.correlation_id,
    n.traceparent, n.tries, extract(epoch FROM now() - n.queued_at)::float
