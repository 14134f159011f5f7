-- The largest number in the outbox, 0 if it is empty.
SELECT coalesce(max(seq), 0) FROM outbox
