-- Ends a claim: sent, or free for the next try.
UPDATE notifications SET
    claimed_until = now(), sent_at = CASE WHEN %(sent)s THEN now() END
WHERE order_id = %(order_id)s AND template = %(template)s AND sent_at IS NULL
