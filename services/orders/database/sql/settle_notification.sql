-- Ends a claim: sent, ended for good, or free for a later try. Tells whether the order has another one.
WITH settled AS (
    UPDATE notifications SET
        claimed_until = '-infinity',
        tries = tries + %(tried)s,
        last_error = %(error)s,
        sent_at = CASE WHEN %(sent)s THEN now() END,
        ended_at = CASE WHEN %(outcome)s::text IS NOT NULL THEN now() END,
        outcome = %(outcome)s,
        next_at = coalesce(now() + make_interval(secs => %(again_in_s)s::float), next_at)
    WHERE order_id = %(order_id)s AND template = %(template)s
    AND message_id = %(message_id)s AND sent_at IS NULL
)
SELECT EXISTS (
    SELECT FROM notifications
    WHERE order_id = %(order_id)s AND template <> %(template)s
    AND sent_at IS NULL AND ended_at IS NULL
) AS another
