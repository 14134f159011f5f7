-- Starts notifications afresh: those of one order that were not sent, one of an order by name whether it
-- was sent or not, or all that ended in a given way. Who did it, and why, is recorded with them.
WITH resent AS (
    UPDATE notifications SET
        next_at = now(), claimed_until = '-infinity', tries = 0, queued_at = now(),
        last_error = NULL, ended_at = NULL, outcome = NULL, sent_at = NULL
    WHERE (
        order_id = %(order_id)s
        AND (template = %(template)s OR (%(template)s::text IS NULL AND sent_at IS NULL))
    )
    OR (%(outcome)s::text IS NOT NULL AND ended_at IS NOT NULL AND outcome = %(outcome)s)
    RETURNING order_id, template
),
recorded AS (
    INSERT INTO operator_actions (actor, action, subject, because, detail)
    SELECT
        %(actor)s, 'notifications resend', %(subject)s, %(because)s,
        jsonb_build_object('notifications', count(*))
    FROM resent
    HAVING count(*) > 0
)
SELECT order_id, template FROM resent
