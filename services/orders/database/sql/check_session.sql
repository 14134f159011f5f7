-- What a new session must know about its server: settings, its start, and which abandoned sessions still wait
-- for a synchronous standby.
SELECT
    current_setting('plan_cache_mode'), current_setting('synchronous_standby_names'),
    ARRAY(
        SELECT pid FROM pg_stat_activity
        WHERE pid = ANY (%(abandoned)s::integer []) AND wait_event = 'SyncRep'
    ),
    pg_postmaster_start_time()::text
