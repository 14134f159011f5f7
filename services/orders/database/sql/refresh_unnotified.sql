-- Forgets missing notifications that were sent meanwhile, and counts those that are overdue.
WITH looked AS (
    SELECT
        c.order_id,
        o.id IS NULL
        OR n.sent_at IS NOT NULL
        -- It is tried again, or the receiver wants no more.
        OR (n.order_id IS NOT NULL AND to_jsonb(n) ->> 'outcome' IS DISTINCT FROM 'given_up')
        OR o.status IN ('Pending', 'Reserved', 'Charging', 'Refunding') AS mended,
        o.updated_at < now() - make_interval(secs => %(within_s)s)
        AND c.seen_at <= now() - make_interval(secs => %(second_look_s)s) AS overdue,
        'order.' || lower(o.status) || '.v1 was not sent' AS detail
    FROM reconciliation_cases AS c
    LEFT JOIN orders AS o ON o.id = c.order_id
    LEFT JOIN notifications AS n
        ON n.order_id = o.id AND n.template = 'order.' || lower(o.status) || '.v1'
    WHERE c.kind = 'notification_missing'
),
mended AS (
    DELETE FROM reconciliation_cases AS c USING looked AS l
    WHERE c.order_id = l.order_id AND c.kind = 'notification_missing' AND l.mended
)
UPDATE reconciliation_cases AS c SET violation = true, detail = l.detail, checked_at = now()
FROM looked AS l
WHERE c.order_id = l.order_id AND c.kind = 'notification_missing'
AND l.overdue AND NOT l.mended AND NOT c.violation
