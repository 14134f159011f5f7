-- How far the replica has replayed, in bytes.
SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn
