-- How far the primary has written, in bytes, and whether some process could not mark its writers.
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, (SELECT until > now() FROM unmarked_writes)
