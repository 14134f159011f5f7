-- claim_order_notification for several orders at once. An order whose row others lock is left out: one must
-- not keep all others waiting. A row that changed since the statement began is locked, and looked at, as it
-- is now.
WITH next AS MATERIALIZED (
    SELECT first.order_id, first.template
    FROM (SELECT DISTINCT id FROM unnest(%(order_ids)s::bigint []) AS asked (id)) AS asked
    CROSS JOIN LATERAL (
        SELECT n.order_id, n.template FROM notifications AS n
        WHERE n.order_id = asked.id AND n.sent_at IS NULL AND n.ended_at IS NULL
        ORDER BY coalesce(n.version, 0), n.template
        LIMIT 1
    ) AS first
),
locked AS MATERIALIZED (
    SELECT n.order_id, n.template FROM notifications AS n
    JOIN next ON n.order_id = next.order_id AND n.template = next.template
    WHERE n.sent_at IS NULL AND n.ended_at IS NULL
    AND n.claimed_until <= now() AND (n.tries = 0 OR n.next_at <= now())
    ORDER BY n.order_id
    FOR UPDATE OF n SKIP LOCKED
)
UPDATE notifications AS n SET claimed_until = now() + make_interval(secs => %(claim_s)s)
FROM locked
WHERE n.order_id = locked.order_id AND n.template = locked.template
RETURNING
    n.order_id, n.template, n.message_id, n.version, n.status, n.reason, n.correlation_id,
    n.traceparent, n.tries, extract(epoch FROM now() - n.queued_at)::float
