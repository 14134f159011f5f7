-- Writes down what an order was found to be, in the place of what was found before. What may mend itself
-- counts when it is overdue and was seen before.
WITH findings AS (
    SELECT * FROM unnest(
        %(kinds)s::text [], %(details)s::text [], %(dues)s::timestamptz []
    ) AS f (kind, detail, due_at)
),
mended AS (
    DELETE FROM reconciliation_cases AS c
    WHERE c.order_id = %(id)s AND c.kind NOT IN ('under_way', 'notification_missing')
    AND NOT EXISTS (SELECT FROM findings AS f WHERE f.kind = c.kind)
)
INSERT INTO reconciliation_cases AS c (order_id, kind, detail, violation)
SELECT %(id)s, kind, detail, due_at IS NULL FROM findings
ON CONFLICT (order_id, kind) DO UPDATE SET
    detail = excluded.detail,
    checked_at = now(),
    -- A person accepted the case with that detail only.
    accepted = c.accepted AND c.detail = excluded.detail,
    violation = excluded.violation OR (
        c.seen_at <= now() - make_interval(secs => %(second_look_s)s)
        AND now() >= (SELECT f.due_at FROM findings AS f WHERE f.kind = excluded.kind)
    )
RETURNING c.kind, c.accepted
