DROP TRIGGER queue_notification ON outbox;

DROP FUNCTION queue_notification();

ALTER TABLE notifications
    DROP COLUMN version, DROP COLUMN status, DROP COLUMN reason, DROP COLUMN correlation_id,
    DROP COLUMN traceparent, DROP COLUMN next_at, DROP COLUMN queued_at, DROP COLUMN last_error,
    DROP COLUMN ended_at, DROP COLUMN outcome;
