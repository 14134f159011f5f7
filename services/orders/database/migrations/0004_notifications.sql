-- depends: 0001_orders
-- transactional: false
-- A notification's row is written with the event it tells of, and kept until it was sent or ended: the
-- message on order-notifications only wakes the notifier. Nothing here reads or rewrites existing rows.
-- Release N-1 goes on working: it claims these rows as its own, and the trigger writes rows for it too.
-- Each statement commits by itself, and all of it runs again after a failure; see 0002_cancellation.

RESET lock_timeout;

ALTER TABLE notifications
    -- What the webhook says, and the order in which an order's notifications go out. Null in rows that
    -- release N-1 wrote.
    ADD COLUMN IF NOT EXISTS version integer,
    ADD COLUMN IF NOT EXISTS status text,
    ADD COLUMN IF NOT EXISTS reason text,
    ADD COLUMN IF NOT EXISTS correlation_id text,
    ADD COLUMN IF NOT EXISTS traceparent text,
    -- When it is due; rows of release N-1 that were never sent are due at once.
    ADD COLUMN IF NOT EXISTS next_at timestamptz NOT NULL DEFAULT now(),
    -- From when its days of trying count: when it was written, or last told to start again.
    ADD COLUMN IF NOT EXISTS queued_at timestamptz NOT NULL DEFAULT now(),
    -- Why the last try failed: a status or a machine-readable word.
    ADD COLUMN IF NOT EXISTS last_error text,
    -- When it was ended without having been sent, and how.
    ADD COLUMN IF NOT EXISTS ended_at timestamptz,
    ADD COLUMN IF NOT EXISTS outcome text,
    DROP CONSTRAINT IF EXISTS notifications_outcome_check,
    ADD CONSTRAINT notifications_outcome_check CHECK (outcome IN ('gone', 'given_up')) NOT VALID;

-- Commits with the outbox row of the same event, whoever writes that. A later event of the same
-- template (a second partial refund, say) takes the row over under its own id.
CREATE OR REPLACE FUNCTION queue_notification() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notifications AS n (
        order_id, template, message_id, tries, claimed_until, version, status, reason,
        correlation_id, traceparent, next_at
    )
    SELECT
        o.id, new.type, new.id, 0, '-infinity', (new.payload ->> 'version')::integer,
        new.payload ->> 'status', new.payload ->> 'reason', new.correlation_id, new.traceparent,
        -- The message brings it to the notifier sooner; the notifier looks for it itself after this.
        now() + interval '10 seconds'
    FROM orders AS o
    WHERE o.id = new.aggregateid::bigint
    ON CONFLICT (order_id, template) DO UPDATE SET
        message_id = excluded.message_id, tries = 0, claimed_until = excluded.claimed_until,
        version = excluded.version, status = excluded.status, reason = excluded.reason,
        correlation_id = excluded.correlation_id, traceparent = excluded.traceparent,
        next_at = excluded.next_at, queued_at = now(), last_error = NULL,
        sent_at = NULL, ended_at = NULL, outcome = NULL;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER queue_notification AFTER INSERT ON outbox FOR EACH ROW
WHEN (
    new.type IN (
        'order.completed.v1', 'order.failed.v1', 'order.cancelled.v1', 'order.refunded.v1'
    )
    AND new.aggregateid ~ '^[0-9]{1,18}$'
)
EXECUTE FUNCTION queue_notification();
