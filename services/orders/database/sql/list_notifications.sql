-- Notifications that were not sent, oldest first: those that wait for a further try, or those that ended.
SELECT order_id, template, state, tries, queued_at, next_at, last_error FROM (
    SELECT
        order_id, template, coalesce(outcome, 'waiting') AS state, tries, queued_at,
        CASE WHEN outcome IS NULL THEN next_at END AS next_at, last_error
    FROM notifications
    WHERE sent_at IS NULL
) AS unsent
WHERE state = ANY(%(states)s::text [])
ORDER BY queued_at, order_id, template
LIMIT %(limit)s
