DELETE FROM processed_messages
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM processed_messages WHERE processed_at <= now() - interval '7 days'
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
