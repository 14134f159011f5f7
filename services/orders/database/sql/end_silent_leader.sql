-- Ends the session that holds a lock if it has been silent for too long, by the server's clock. A process may
-- end the sessions of its own role. idle_session_timeout does not end these: a client that does not read its
-- answer is not idle.
SELECT pg_terminate_backend(pid)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND objid::bigint = %(lock)s
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND greatest(query_start, state_change) < clock_timestamp() - make_interval(secs => %(silence_s)s)
