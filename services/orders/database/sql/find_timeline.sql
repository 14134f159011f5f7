-- The server's identifier and timeline. A promotion raises the timeline.
SELECT
    (SELECT system_identifier FROM pg_control_system()),
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
