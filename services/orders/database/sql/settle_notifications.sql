-- settle_notification for several claims at once. Returns those that it ended, by their indexes among the
-- arguments. A row that others lock is left out, and so is one that a later event took over.
WITH ended AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(ended)s::json) AS ended (
        index integer, order_id bigint, template text, message_id uuid, sent boolean, outcome text,
        again_in_s double precision, error text, tried integer
    )
),
locked AS MATERIALIZED (
    SELECT n.order_id, n.template FROM notifications AS n
    JOIN ended ON n.order_id = ended.order_id AND n.template = ended.template
    WHERE n.message_id = ended.message_id AND n.sent_at IS NULL
    ORDER BY n.order_id, n.template
    FOR UPDATE OF n SKIP LOCKED
),
settled AS (
    UPDATE notifications AS n SET
        claimed_until = '-infinity',
        tries = n.tries + ended.tried,
        last_error = ended.error,
        sent_at = CASE WHEN ended.sent THEN now() END,
        ended_at = CASE WHEN ended.outcome IS NOT NULL THEN now() END,
        outcome = ended.outcome,
        next_at = coalesce(now() + make_interval(secs => ended.again_in_s), n.next_at)
    FROM ended
    JOIN locked ON locked.order_id = ended.order_id AND locked.template = ended.template
    WHERE n.order_id = ended.order_id AND n.template = ended.template
    RETURNING ended.index, n.order_id, n.template
)
SELECT
    settled.index,
    EXISTS (
        SELECT FROM notifications AS other
        WHERE other.order_id = settled.order_id AND other.template <> settled.template
        AND other.sent_at IS NULL AND other.ended_at IS NULL
    ) AS another
FROM settled
