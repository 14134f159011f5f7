-- A lost wake-up costs the time until the relay's next query, so the commit waits for no disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify('outbox', '')
