-- Reserves the sending of one notification for a while; a crashed sender's claim runs out.
-- Returns the webhook id to send it under (the same on every try), and whether it was sent before.
WITH claimed AS (
    INSERT INTO notifications AS n (order_id, template, message_id, claimed_until)
    VALUES (
        %(order_id)s, %(template)s, %(message_id)s, now() + make_interval(secs => %(claim_s)s)
    )
    ON CONFLICT (order_id, template) DO UPDATE SET
        tries = n.tries + 1, claimed_until = excluded.claimed_until
    WHERE n.sent_at IS NULL AND n.claimed_until < now()
    RETURNING message_id
)
SELECT message_id, true AS claimed, false AS sent FROM claimed
UNION ALL
SELECT message_id, false, sent_at IS NOT NULL FROM notifications
WHERE order_id = %(order_id)s AND template = %(template)s AND NOT EXISTS (SELECT FROM claimed)
