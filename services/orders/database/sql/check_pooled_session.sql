-- check_session through a pooler, which hides the sessions' numbers: whether any commit of this role waits.
SELECT
    current_setting('synchronous_standby_names'),
    EXISTS (
        SELECT FROM pg_stat_activity
        WHERE usename = current_user AND wait_event = 'SyncRep'
    )
